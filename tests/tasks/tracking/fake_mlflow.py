"""A tracking server in memory that loses requests and answers as a test plans, and a night's worth of reports to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST

from tasks.tracking.mlflow_store import Store
from tests.tasks.rows import stage_record

OF_A_PLACE = ("mlflow.parentRunId", "nightschool.spool_id", "nightschool.home")
"""Tags that differ between two homes."""


@dataclass
class FakeRun:
    """A run as the server has it."""

    run_id: str
    name: str
    start_time: int
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    points: dict[tuple[str, int, float, int], None] = field(default_factory=dict)
    """(name, step, value, time), each once: MLflow's primary key."""
    artifacts: dict[str, bytes] = field(default_factory=dict)
    datasets: set[tuple[str, str, str]] = field(default_factory=set)
    status: str = "RUNNING"
    end_time: int | None = None


class Away(Exception):
    """Of a library below MLflow."""


class Killed(BaseException):
    """The process ends here."""


def answers(_call: int, _name: str) -> str:
    return "answers"


@dataclass
class FakeServer:
    """Behaves as `behaviour(number of the call, its name)` says, a word for each call: "answers", "lost request",
    "lost answer", "half" (of a batch arrives), "killed before", "killed after".
    """

    behaviour: Callable[[int, str], str] = answers
    runs: dict[str, FakeRun] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    experiment: SimpleNamespace | None = None

    def call(self, name: str, effect: Callable[[bool], Any]) -> Any:
        """Do what a call asks for; `effect` gets whether it is to be cut at the half."""
        word = self.behaviour(len(self.calls), name)
        self.calls.append(name)
        if word == "killed before":
            raise Killed
        if word == "lost request":
            raise Away(f"no route to the server for {name}")
        result = effect(word == "half")
        if word in ("lost answer", "half"):
            raise MlflowException(f"{name} failed with timeout")
        if word == "killed after":
            raise Killed
        return result

    def run(self, run_id: str) -> FakeRun:
        if run_id not in self.runs:
            raise MlflowException(f"no run {run_id}", error_code=RESOURCE_DOES_NOT_EXIST)
        return self.runs[run_id]

    def state(self) -> dict[str, Any]:
        """What a person sees, by the names of runs. Raises AssertionError if a run is there twice."""
        names = {run.run_id: run.name for run in self.runs.values()}
        assert len(set(names.values())) == len(names), f"runs made twice: {sorted(names.values())}"
        return {
            run.name: {
                "parent": names.get(run.tags.get("mlflow.parentRunId", "")),
                "tags": {k: v for k, v in run.tags.items() if k not in OF_A_PLACE},
                "params": run.params,
                "points": sorted((key, step, value) for key, step, value, _ in run.points),
                "artifacts": run.artifacts,
                "datasets": run.datasets,
                "status": run.status,
            }
            for run in self.runs.values()
        }


def shown(run: FakeRun) -> SimpleNamespace:
    info = SimpleNamespace(run_id=run.run_id, status=run.status, lifecycle_stage="active", artifact_uri=run.run_id)
    metrics = {key: value for key, _, value, _ in run.points}
    return SimpleNamespace(info=info, data=SimpleNamespace(tags=dict(run.tags), metrics=metrics))


@dataclass
class FakeClient:
    """The methods of MlflowClient that are used."""

    server: FakeServer

    def get_experiment_by_name(self, name: str) -> Any:
        return self.server.call("get_experiment_by_name", lambda _: self.server.experiment)

    def create_experiment(self, name: str, artifact_location: str | None) -> str:
        def effect(_: bool) -> str:
            self.server.experiment = SimpleNamespace(experiment_id="1", lifecycle_stage="active")
            return "1"

        return self.server.call("create_experiment", effect)

    def create_run(self, experiment: str, start_time: int, tags: Mapping[str, str], run_name: str) -> Any:
        def effect(_: bool) -> Any:
            run = FakeRun(uuid4().hex, run_name, start_time, dict(tags))
            self.server.runs[run.run_id] = run
            return shown(run)

        return self.server.call("create_run", effect)

    def search_runs(self, experiments: list[str], query: str, max_results: int) -> list[Any]:
        def matches(run: FakeRun) -> bool:
            key, _, value = query.partition(" = ")
            value = value.strip("'")
            return run.status == value if key == "attributes.status" else run.tags.get(key[6:-1]) == value

        return self.server.call("search_runs", lambda _: [shown(r) for r in self.server.runs.values() if matches(r)])

    def get_run(self, run_id: str) -> Any:
        return self.server.call("get_run", lambda _: shown(self.server.run(run_id)))

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        def effect(half: bool) -> None:
            run = self.server.run(run_id)
            for param in params:
                if run.params.setdefault(param.key, param.value) != param.value:
                    raise MlflowException("a parameter cannot change", error_code=INVALID_PARAMETER_VALUE)
            run.tags.update({tag.key: tag.value for tag in tags})
            if any("!" in metric.key for metric in metrics):
                raise MlflowException("invalid name", error_code=INVALID_PARAMETER_VALUE)
            for metric in metrics[: len(metrics) // 2] if half else metrics:
                run.points[metric.key, metric.step, metric.value, metric.timestamp] = None

        self.server.call("log_batch", effect)

    def log_artifact(self, run_id: str, path: str, folder: str | None) -> None:
        def effect(_: bool) -> None:
            name = f"{folder}/{Path(path).name}" if folder else Path(path).name
            self.server.run(run_id).artifacts[name] = Path(path).read_bytes()

        self.server.call("log_artifact", effect)

    def log_artifacts(self, run_id: str, path: str, folder: str) -> None:
        def effect(half: bool) -> None:
            files = sorted(file for file in Path(path).rglob("*") if file.is_file())
            for file in files[: len(files) // 2] if half else files:
                name = f"{folder}/{file.relative_to(path).as_posix()}"
                self.server.run(run_id).artifacts[name] = file.read_bytes()

        self.server.call("log_artifacts", effect)

    def log_inputs(self, run_id: str, inputs: list[Any]) -> None:
        def effect(_: bool) -> None:
            for item in inputs:
                entry = (item.dataset.name, item.dataset.digest, item.tags[0].value)
                self.server.run(run_id).datasets.add(entry)

        self.server.call("log_inputs", effect)

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        def effect(_: bool) -> list[Any]:
            points = self.server.run(run_id).points
            return [SimpleNamespace(step=step, timestamp=at) for name, step, _, at in points if name == key]

        return self.server.call("get_metric_history", effect)

    def update_run(self, run_id: str, status: str) -> None:
        self.server.call("update_run", lambda _: setattr(self.server.run(run_id), "status", status))

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        def effect(_: bool) -> None:
            run = self.server.run(run_id)
            run.status, run.end_time = status, end_time

        self.server.call("set_terminated", effect)


def report_a_night(store: Store, folder: Path) -> tuple[str, str]:
    """All kinds of calls, on two runs, one of which is interrupted and goes on; returns their ids."""
    folder.mkdir()
    night = store.start_run("night", {"nightschool.kind": "night"})
    store.tracker(night).params({"recipe": "demo"})
    stage = store.start_run("pretrain", {"nightschool.kind": "stage"}, parent_id=night)
    tracker = store.tracker(stage)
    tracker.dataset(stage_record(folder, digest="0123456789" * 7), "rows", "training")
    for step in range(1, 6):
        tracker.metrics({"train/loss": 1.0 / step, "train/lr": 0.1}, step)
    tracker.close("KILLED")
    assert store.reopen(stage)
    tracker = store.tracker(stage)
    for step in range(4, 9):
        tracker.metrics({"train/loss": 1.0 / step, "train/lr": 0.1}, step)
    summary, model = folder / "summary.md", folder / "model"
    summary.write_text("# Night")
    model.mkdir()
    (model / "config").write_text("{}")
    (model / "weights").write_text("weights")
    tracker.artifact(model)
    tracker.artifact(summary, "reports")
    summary.write_text("# Night, again")
    tracker.artifact(summary)
    tracker.tags({"nightschool.promoted": "true"})
    tracker.final({"outcome/seconds": 7.0, "train/loss": 1 / 8}, step=8)
    tracker.close("FINISHED")
    parent = store.tracker(night)
    parent.metrics({"val/bpb": 2.0})
    parent.tags({"nightschool.stage.pretrain": "an id"})
    parent.close("RUNNING")
    store.tracker(night).close("FINISHED")
    return night, stage
