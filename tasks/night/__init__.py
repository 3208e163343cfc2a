"""The night as a whole: opened, concluded, reported, corrected by hand."""
