"""Addresses of MLflow's pages."""

from __future__ import annotations

import httpx

from tasks.services.addresses import EXPERIMENT, MLFLOW_PORT, NIGHTS_VIEW, NIGHTS_VIEW_TAG
from tasks.services.processes import running_url

BY_NAME = "/api/2.0/mlflow/experiments/get-by-name"
SECONDS = 10.0


def tracking_ui(tracking_uri: str) -> str:
    """The tracking server itself, or the one that `make up` starts over a local store."""
    if tracking_uri.startswith("http"):
        return tracking_uri
    return running_url("mlflow") or f"http://127.0.0.1:{MLFLOW_PORT}"


def nights_page(ui: str, experiment_id: str) -> str:
    """The page of all nights side by side; the UI's first one while the experiment is not known."""
    query = f"viewStateShareKey={NIGHTS_VIEW}&workflowType=machine_learning"
    return f"{ui}/#/experiments/{experiment_id}/runs?{query}" if experiment_id else ui


def nights_of(server: str) -> str:
    """The page of all nights on a server that answers; its first page while there are none."""
    try:
        answer = httpx.get(f"{server}{BY_NAME}", params={"experiment_name": EXPERIMENT}, timeout=SECONDS)
        experiment = answer.json()["experiment"]
        shown = any(tag["key"] == NIGHTS_VIEW_TAG for tag in experiment.get("tags", ()))
    except (httpx.HTTPError, ValueError, KeyError):
        return server
    return nights_page(server, str(experiment["experiment_id"]) if shown else "")


def run_page(ui: str, experiment_id: str, run_id: str) -> str:
    """The page of a run, in the UI at this address."""
    return f"{ui}/#/experiments/{experiment_id}/runs/{run_id}"


def artifact_page(ui: str, experiment_id: str, run_id: str, name: str) -> str:
    """The page of a run that shows an artifact, in the UI at this address. MLflow takes the name as it is: an @ that is
    written as %40 selects nothing."""
    return f"{run_page(ui, experiment_id, run_id)}/artifactPath/{name}"
