"""What is told to MLflow. The only module that imports it; run ids are always explicit, never "the active run"."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from tasks.errors import NightStopped
from tasks.home.records import Content

EXPERIMENT = "nightschool"
MODEL = "nightschool"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
BUFFERED_METRICS = 500
log = logging.getLogger("nightschool")
T = TypeVar("T")


class MlflowTracker:
    """One MLflow run. Metrics are buffered; a step already logged, before an interruption, is not logged again."""

    def __init__(self, tracking_uri: str, run_id: str, system_metrics: bool = False) -> None:
        self.run_id = run_id
        self._client = MlflowClient(tracking_uri)
        self._buffer: list[Metric] = []
        self._logged_until = self._last_step()
        self._monitor: SystemMetricsMonitor | None = None
        if system_metrics:
            self._monitor = SystemMetricsMonitor(
                run_id, sampling_interval=2, samples_before_logging=2, tracking_uri=tracking_uri
            )
            self._monitor.start()

    def _last_step(self) -> int:
        return max((m.step for m in self._client.get_metric_history(self.run_id, "train/loss")), default=-1)

    def params(self, values: Mapping[str, str]) -> None:
        self._client.log_batch(self.run_id, params=[Param(key, value[:6_000]) for key, value in values.items()])

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        if step <= self._logged_until and step > 0:
            return
        at = int(time.time() * 1_000)
        self._buffer += [Metric(key, value, at, step) for key, value in values.items()]
        if len(self._buffer) >= BUFFERED_METRICS:
            self._flush()

    def _flush(self) -> None:
        """Send the buffer. A tracking store that is away must not end a night: the buffer waits for the next try."""
        try:
            for start in range(0, len(self._buffer), 900):
                self._client.log_batch(self.run_id, metrics=self._buffer[start : start + 900])
        except MlflowException as error:
            log.warning("tracking store did not answer, %d metrics wait: %s", len(self._buffer), str(error)[:200])
            return
        self._buffer.clear()

    def tags(self, values: Mapping[str, str]) -> None:
        self._client.log_batch(self.run_id, tags=[RunTag(key, value[:5_000]) for key, value in values.items()])

    def artifact(self, path: Path, folder: str = "") -> None:
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder or path.name)
        else:
            self._client.log_artifact(self.run_id, str(path), folder or None)

    def dataset(self, content: Content, name: str, context: str) -> None:
        dataset = Dataset(name, content.digest[:32], "local", json.dumps({"uri": content.path.as_uri()}))
        self._client.log_inputs(self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def close(self, status: str) -> None:
        if self._monitor:
            self._monitor.finish()
        self._flush()
        try:
            self._client.set_terminated(self.run_id, status)
        except MlflowException as error:
            log.warning("tracking store did not answer, run %s stays open: %s", self.run_id, str(error)[:200])


def known(ask: Callable[..., T], *arguments: str) -> T | None:
    """What the store answers, None if it knows no such thing. A store that is away is not one that does not know.

    Raises NightStopped then: a night that took silence for "there is no champion" would promote anything.
    """
    try:
        return ask(*arguments)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise NightStopped(f"the tracking store did not answer: {error}; nothing was promoted") from error


@dataclass(frozen=True)
class ModelVersion:
    """A registered model."""

    version: int
    path: Path
    """Its files on this machine."""
    digest: str


class Store:
    """Runs and the model registry of one tracking address."""

    def __init__(self, tracking_uri: str, home: Path) -> None:
        self.tracking_uri = tracking_uri
        self._home = home
        if tracking_uri.startswith("sqlite:///"):
            Path(tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri)

    def experiment_id(self) -> str:
        """The experiment, created with artifacts under the home on first use."""
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found:
            return str(found.experiment_id)
        local = self.tracking_uri.startswith("sqlite:")
        root = (self._home / "mlflow" / "artifacts").as_uri() if local else None
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=root))

    def start_run(self, name: str, tags: Mapping[str, str], parent_id: str = "") -> str:
        """Create a run and return its id."""
        parent = {"mlflow.parentRunId": parent_id} if parent_id else {}
        run = self._client.create_run(self.experiment_id(), tags={**tags, **parent}, run_name=name)
        return str(run.info.run_id)

    def reopen(self, run_id: str) -> bool:
        """Set a run running again; False if the store does not know it."""
        if known(self._client.get_run, run_id) is None:
            return False
        self._client.update_run(run_id, status="RUNNING")
        return True

    def close_orphans(self, home: Path) -> int:
        """Mark runs of this home that a dead process left RUNNING as KILLED. Call it while holding the lease."""
        open_runs = self._client.search_runs([self.experiment_id()], "attributes.status = 'RUNNING'", max_results=1_000)
        orphans = [run for run in open_runs if run.data.tags.get("nightschool.home") == str(home)]
        for run in orphans:
            self._client.set_terminated(run.info.run_id, "KILLED")
        return len(orphans)

    def tracker(self, run_id: str, system_metrics: bool = False) -> MlflowTracker:
        return MlflowTracker(self.tracking_uri, run_id, system_metrics)

    def version_of(self, alias: str) -> int | None:
        """Number of the version that holds an alias."""
        found = known(self._client.get_model_version_by_alias, MODEL, alias)
        return int(found.version) if found else None

    def holder_of(self, alias: str) -> ModelVersion | None:
        """The version that holds an alias, with its files on this machine."""
        found = known(self._client.get_model_version_by_alias, MODEL, alias)
        if found is None:
            return None
        folder = Path(mlflow.artifacts.download_artifacts(found.source, tracking_uri=self.tracking_uri))
        return ModelVersion(int(found.version), folder, found.tags.get("nightschool.digest", ""))

    def register(self, run_id: str, digest: str, description: str) -> int:
        """Register the `model` folder of a run's artifacts; done again for the same run it gives the same version."""
        with suppress(MlflowException):
            self._client.create_registered_model(MODEL, description="MoE chat models of the nightly retraining")
        for version in self._client.search_model_versions(f"name='{MODEL}'"):
            if version.tags.get("nightschool.digest") == digest and version.run_id == run_id:
                return int(version.version)
        source = f"{self._client.get_run(run_id).info.artifact_uri}/model"
        tags = {"nightschool.digest": digest}
        created = self._client.create_model_version(MODEL, source, run_id, tags=tags, description=description)
        return int(created.version)

    def has_version(self, version: int) -> bool:
        return known(self._client.get_model_version, MODEL, str(version)) is not None

    def set_alias(self, alias: str, version: int) -> None:
        self._client.set_registered_model_alias(MODEL, alias, str(version))

    def make_champion(self, version: int, reason: str) -> None:
        """Move the champion alias; the one before becomes `previous`. Raises MlflowException for an unknown version."""
        before = self.version_of(CHAMPION)
        self._client.set_model_version_tag(MODEL, str(version), "nightschool.decision", reason[:5_000])
        if before and before != version:
            self.set_alias(PREVIOUS, before)
        self.set_alias(CHAMPION, version)
