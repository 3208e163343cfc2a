"""The stages of a night, a file each. No stage imports another."""
