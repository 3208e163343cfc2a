"""Addresses of MLflow's pages."""

from __future__ import annotations

from tasks.services.addresses import MLFLOW_PORT, NIGHTS_VIEW
from tasks.services.processes import running_url


def tracking_ui(tracking_uri: str) -> str:
    """The tracking server itself, or the one that `make up` starts over a local store."""
    if tracking_uri.startswith("http"):
        return tracking_uri
    return running_url("mlflow") or f"http://127.0.0.1:{MLFLOW_PORT}"


def nights_page(ui: str, experiment_id: str) -> str:
    """The page of all nights side by side; the UI's first one while the experiment is not known."""
    return f"{ui}/#/experiments/{experiment_id}/runs?viewStateShareKey={NIGHTS_VIEW}" if experiment_id else ui


def run_page(ui: str, experiment_id: str, run_id: str) -> str:
    """The page of a run, in the UI at this address."""
    return f"{ui}/#/experiments/{experiment_id}/runs/{run_id}"
