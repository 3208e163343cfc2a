"""The training step beside others."""
