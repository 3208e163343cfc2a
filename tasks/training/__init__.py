"""What every training stage does: start, rank processes, validation, meters, watchers, curve, progress."""
