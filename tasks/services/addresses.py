"""Where services listen."""

from __future__ import annotations

PREFECT_PORT, MLFLOW_PORT = 4200, 5000
"""Preferred ports; where something listens already, another free one is used."""
NIGHTS_VIEW = "nights"
"""Key of the view of the nights, in links to MLflow's pages."""
