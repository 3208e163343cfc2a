"""Text as ids: encoding, windows, packed rows in shards, overlap of the sides."""
