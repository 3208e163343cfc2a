"""Curves of training as pure functions; numpy alone."""
