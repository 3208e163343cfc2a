"""The transformer: attention, norms, blocks, key-value cache."""
