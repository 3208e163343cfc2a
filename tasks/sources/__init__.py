"""From the locations of a recipe to pieces of files with digests."""
