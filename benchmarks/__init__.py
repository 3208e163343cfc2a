"""Measurements beside other ways to do the same work."""

import tasks as tasks  # libraries read their settings when they are imported, so ours come first
