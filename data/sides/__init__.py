"""Train and validation: which side a row is on, the shuffled order, validation slices."""
