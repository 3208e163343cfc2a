"""Registered models in use: which version is meant, a chat in the terminal, and servers of others on it."""
