"""Files, datasets and models of a run, as MLflow takes them. Each can be sent twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput

from tasks.errors import Refused


def send_artifact(client: MlflowClient, mlflow_id: str, path: Path, folder: str) -> None:
    """Send a file, or a folder with all in it; `folder` is where in the run's artifacts."""
    if path.is_dir():
        client.log_artifacts(mlflow_id, str(path), folder or path.name)
    elif path.exists():
        client.log_artifact(mlflow_id, str(path), folder or None)
    else:
        raise Refused(f"{path} is gone")


def send_dataset(client: MlflowClient, mlflow_id: str, home: Path, values: Mapping[str, Any]) -> None:
    """Note what a run read; an address without a scheme is a path in the home."""
    uri = values["uri"] if "://" in values["uri"] else (home / values["uri"]).as_uri()
    dataset = Dataset(values["name"], values["digest"], "local", json.dumps({"uri": uri}))
    client.log_inputs(mlflow_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", values["context"])])])


def send_model(client: MlflowClient, mlflow_id: str, values: Mapping[str, Any]) -> None:
    """Note which registered version a run made. MLflow lists it through a model of its own, which is made if the
    version has none."""
    version = client.get_model_version(values["name"], str(values["version"]))
    run = client.get_run(mlflow_id)
    outputs = run.outputs.model_outputs if run.outputs else []
    if version.model_id:
        model_id = str(version.model_id)
    elif outputs:
        return
    else:
        tags = {"mlflow.modelVersions": json.dumps([{"name": values["name"], "version": str(values["version"])}])}
        made = client.create_logged_model(run.info.experiment_id, values["name"], mlflow_id, tags)
        model_id = str(client.finalize_logged_model(made.model_id, "READY").model_id)
    if model_id not in {output.model_id for output in outputs}:
        client.log_outputs(mlflow_id, [LoggedModelOutput(model_id, values["step"])])
