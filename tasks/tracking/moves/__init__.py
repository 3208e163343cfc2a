"""Who moved the champion alias: attempts in one order, shared by all homes of a registry."""
