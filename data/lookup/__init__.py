"""Questions about single rows, answered from files through memory maps."""
