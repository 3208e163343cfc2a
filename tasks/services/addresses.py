"""Where services listen."""

from __future__ import annotations

PREFECT_PORT, MLFLOW_PORT = 4200, 5000
"""Preferred; another free one is taken if something listens there."""
