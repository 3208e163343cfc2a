"""Generation beside others."""
