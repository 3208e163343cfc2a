"""Raw files as lines: what a file is, its bytes, and each row of it with number and place."""
