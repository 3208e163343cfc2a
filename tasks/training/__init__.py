"""What every training stage does: start, rank processes, validation, curve, progress."""
