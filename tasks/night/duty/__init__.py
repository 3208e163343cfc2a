"""When a night is due, who may take the home from one that hangs, and who hears how one ended."""
