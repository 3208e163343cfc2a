"""What nights leave behind: which of it is needed, and how the rest goes."""
