"""Which task comes after which. Wiring only: no torch, no files, no tracking calls."""
