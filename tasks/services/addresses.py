"""Where services listen, and what is looked at there."""

from __future__ import annotations

PREFECT_PORT, MLFLOW_PORT = 4200, 5000
"""Preferred ports; where something listens already, another free one is used."""
EXPERIMENT = "nightschool"
"""In MLflow, of all nights."""
NIGHTS_VIEW = "nights"
"""Key of the view of the nights, in links to MLflow's pages."""
NIGHTS_VIEW_TAG = f"mlflow.sharedViewState.{NIGHTS_VIEW}"
"""Of the experiment: the view, as MLflow keeps those that people share."""
