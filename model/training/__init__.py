"""The training loop: state, batches, steps, checkpoints, scoring, changes of experts."""
