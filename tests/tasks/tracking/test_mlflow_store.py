"""What a stage says arrives once, in order, and survives a store that is away; the registry moves aliases as asked."""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from tasks.errors import NightStopped
from tasks.tracking.mlflow_store import BUFFERED_METRICS, CHALLENGER, CHAMPION, EXPERIMENT, MODEL, PREVIOUS, Store
from tasks.tracking.tracker import DictTracker, Tracker
from tests.tasks.rows import stage_record


def run_of(store: Store, run_id: str) -> Run:
    return MlflowClient(store.tracking_uri).get_run(run_id)


def history(store: Store, run_id: str, key: str = "train/loss") -> list[tuple[int, float]]:
    """(step, value) as logged, in order of step."""
    return sorted((m.step, m.value) for m in MlflowClient(store.tracking_uri).get_metric_history(run_id, key))


def tell_everything(tracker: Tracker, folder: Path) -> None:
    """Something of each kind that a stage says."""
    (folder / "figure.png").write_bytes(b"picture")
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights").write_bytes(b"weights")
    tracker.params({"stage.kept": "3", "long": "x" * 6_001})
    tracker.metrics({"val/bpb": 2.5})
    tracker.metrics({"train/loss": 4.0, "train/lr": 0.1}, step=1)
    tracker.tags({"nightschool.model": "challenger"})
    tracker.artifact(folder / "figure.png", "figures")
    tracker.artifact(folder / "figure.png")
    tracker.artifact(folder / "model")
    tracker.dataset(stage_record(folder, digest="0123456789" * 7), "rows", "training")
    tracker.close("FINISHED")


def test_everything_said_appears_in_the_run(store: Store, tmp_path: Path) -> None:
    run_id = store.start_run("tokens-0123", {"nightschool.stage": "tokens"})
    tell_everything(store.tracker(run_id), tmp_path)
    run, client = run_of(store, run_id), MlflowClient(store.tracking_uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "tokens-0123"
    assert run.data.params["stage.kept"] == "3"
    assert run.data.params["long"] == "x" * 6_000
    assert run.data.metrics == {"val/bpb": 2.5, "train/loss": 4.0, "train/lr": 0.1}
    assert run.data.tags["nightschool.model"] == "challenger"
    assert run.data.tags["nightschool.stage"] == "tokens"
    assert {item.path for item in client.list_artifacts(run_id)} == {"figure.png", "figures", "model"}
    copy = Path(client.download_artifacts(run_id, "model/weights", str(tmp_path)))
    assert copy.read_bytes() == b"weights"
    [dataset] = run.inputs.dataset_inputs
    assert dataset.dataset.name == "rows"
    assert dataset.dataset.digest == ("0123456789" * 7)[:32]
    assert tmp_path.as_uri() in dataset.dataset.source
    assert [(tag.key, tag.value) for tag in dataset.tags] == [("mlflow.data.context", "training")]


def test_a_tracker_leaves_the_process_as_it_was(store: Store) -> None:
    """MLflow's own way to say where runs go is an environment variable that outlives the run."""
    before = dict(os.environ), mlflow.get_tracking_uri()
    tracker = store.tracker(store.start_run("sft-0123", {}), system_metrics=True)
    tracker.close("FINISHED")
    assert (dict(os.environ), mlflow.get_tracking_uri()) == before


def test_the_double_keeps_everything_too(tmp_path: Path) -> None:
    tracker = DictTracker()
    tell_everything(tracker, tmp_path)
    assert tracker.logged_params["stage.kept"] == "3"
    assert tracker.logged_metrics == {"val/bpb": [(0, 2.5)], "train/loss": [(1, 4.0)], "train/lr": [(1, 0.1)]}
    assert tracker.logged_tags == {"nightschool.model": "challenger"}
    assert tracker.logged_artifacts == ["figures/figure.png", "figure.png", "model"]
    assert tracker.logged_datasets == {"training:rows": "0123456789" * 7}
    assert tracker.status == "FINISHED"
    assert DictTracker().status == "RUNNING"
    assert DictTracker().logged_params == {}, "two trackers share nothing"


def test_runs_lie_in_one_experiment_with_artifacts_below_the_home(store: Store, tmp_path: Path) -> None:
    parent = store.start_run("night", {})
    child = store.start_run("stage", {"a": "b"}, parent_id=parent)
    run = run_of(store, child)
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["a"] == "b"
    assert "mlflow.parentRunId" not in run_of(store, parent).data.tags
    assert run.info.experiment_id == run_of(store, parent).info.experiment_id == store.experiment_id()
    assert MlflowClient(store.tracking_uri).get_experiment(run.info.experiment_id).name == EXPERIMENT
    assert run.info.artifact_uri.startswith((tmp_path / "mlflow" / "artifacts").as_uri())


def test_a_full_buffer_is_sent_before_the_end(store: Store) -> None:
    """So that a night can be watched, and a killed one has left something."""
    run_id = store.start_run("stage", {})
    tracker = store.tracker(run_id)
    for step in range(1, BUFFERED_METRICS):
        tracker.metrics({"train/loss": 1.0}, step)
    assert history(store, run_id) == []
    tracker.metrics({"train/loss": 1.0}, BUFFERED_METRICS)
    assert [step for step, _ in history(store, run_id)] == list(range(1, BUFFERED_METRICS + 1))


def test_a_run_that_goes_on_does_not_log_a_step_twice(store: Store) -> None:
    """An interrupted stage goes back to its checkpoint and computes some steps again."""
    run_id = store.start_run("stage", {})
    first = store.tracker(run_id)
    for step in range(1, 6):
        first.metrics({"train/loss": float(step)}, step)
    first.close("KILLED")
    assert store.reopen(run_id)
    assert run_of(store, run_id).info.status == "RUNNING"
    second = store.tracker(run_id)
    for step in range(4, 8):
        second.metrics({"train/loss": float(step), "val/bpb": 2.0}, step)
    second.metrics({"val/perplexity": 9.0})
    second.close("FINISHED")
    assert history(store, run_id) == [(step, float(step)) for step in range(1, 8)]
    assert [step for step, _ in history(store, run_id, "val/bpb")] == [6, 7]
    assert history(store, run_id, "val/perplexity") == [(0, 9.0)], "what has no step is said again"


def test_an_unknown_run_cannot_be_reopened(store: Store) -> None:
    assert not store.reopen("0123456789abcdef0123456789abcdef")


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is logged while the test runs."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, logger = Keep(), logging.getLogger("nightschool")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def unsteady(monkeypatch: pytest.MonkeyPatch, away: Container[int]) -> list[int]:
    """Trackers from now on have a store that is away for the calls of `log_batch` with these numbers.

    The steps of the metrics that arrive are added to the list that is returned.
    """
    arrived: list[int] = []
    calls = count()

    class Unsteady(MlflowClient):
        def log_batch(self, run_id: str, metrics: Sequence[Metric] = (), **others: Any) -> None:
            if next(calls) in away:
                raise MlflowException("the store is away")
            super().log_batch(run_id, metrics=metrics, **others)
            arrived.extend(metric.step for metric in metrics)

    monkeypatch.setattr("tasks.tracking.mlflow_store.MlflowClient", Unsteady)
    return arrived


def test_metrics_wait_for_a_store_that_is_away_and_arrive_in_order(
    store: Store, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    run_id = store.start_run("stage", {})
    arrived = unsteady(monkeypatch, away=range(4))
    tracker = store.tracker(run_id)
    steps = list(range(1, BUFFERED_METRICS + 8))
    for step in steps[: BUFFERED_METRICS + 2]:
        tracker.metrics({"train/loss": float(step)}, step)
    assert arrived == []
    assert len(warnings) == 3, "each try that failed is told"
    assert all("the store is away" in line for line in warnings)
    for step in steps[BUFFERED_METRICS + 2 :]:
        tracker.metrics({"train/loss": float(step)}, step)
    tracker.close("FINISHED")
    assert arrived == steps
    assert history(store, run_id) == [(step, float(step)) for step in steps]


def test_what_arrived_of_a_broken_batch_does_not_count_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = store.start_run("stage", {})
    arrived = unsteady(monkeypatch, away=[1])
    tracker = store.tracker(run_id)
    tracker.metrics({f"key/{number}": float(number) for number in range(1_000)}, 1)
    assert 0 < len(arrived) < 1_000, "the second part of the batch did not arrive"
    tracker.close("FINISHED")
    for number in (0, 899, 900, 999):
        assert history(store, run_id, f"key/{number}") == [(1, float(number))]


@pytest.mark.parametrize("name", ["home", "two words", "Tom's models", 'say "hi"'])
def test_only_running_runs_of_this_home_are_orphans(store: Store, tmp_path: Path, name: str) -> None:
    home, other = tmp_path / name, tmp_path / f"{name} too"
    mine = [store.start_run(f"mine {n}", {"nightschool.home": str(home)}) for n in range(2)]
    done = store.start_run("done", {"nightschool.home": str(home)})
    store.tracker(done).close("FINISHED")
    theirs = store.start_run("theirs", {"nightschool.home": str(other)})
    nobodys = store.start_run("of nobody", {})
    assert store.close_orphans(home) == 2
    assert [run_of(store, i).info.status for i in mine] == ["KILLED", "KILLED"]
    assert [run_of(store, i).info.status for i in (done, theirs, nobodys)] == ["FINISHED", "RUNNING", "RUNNING"]
    assert store.close_orphans(home) == 0


def trained(store: Store, folder: Path, content: str) -> str:
    """A run with a model among its artifacts."""
    run_id = store.start_run("register", {})
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights").write_text(content)
    tracker = store.tracker(run_id)
    tracker.artifact(folder / "model", "model")
    tracker.close("FINISHED")
    return run_id


@pytest.fixture
def versions(store: Store, tmp_path: Path) -> list[int]:
    """Three registered models."""
    return [store.register(trained(store, tmp_path, f"weights {n}"), f"digest {n}", "why") for n in range(3)]


def held(store: Store) -> tuple[int | None, int | None]:
    """Versions of champion and previous."""
    champion, previous = store.holder_of(CHAMPION), store.holder_of(PREVIOUS)
    return champion and champion.version, previous and previous.version


def test_registering_again_keeps_the_version(store: Store, tmp_path: Path) -> None:
    """A stage that died between registering and publishing does it again."""
    one, other = trained(store, tmp_path, "a"), trained(store, tmp_path, "b")
    first = store.register(one, "digest a", "why")
    assert store.register(one, "digest a", "why not") == first
    assert store.register(other, "digest b", "why") == first + 1
    assert store.register(one, "digest a", "why") == first
    assert [store.has_version(version) for version in (first, first + 1, first + 2)] == [True, True, False]


def test_nothing_is_held_and_no_version_is_there_at_first(store: Store) -> None:
    assert held(store) == (None, None)
    assert not store.has_version(1)


def test_the_holder_of_an_alias_has_its_files_here(store: Store, versions: list[int]) -> None:
    for number, version in enumerate(versions):
        store.set_alias(CHALLENGER, version)
        found = store.holder_of(CHALLENGER)
        assert found is not None
        assert (found.version, found.digest) == (version, f"digest {number}")
        assert (found.path / "weights").read_text() == f"weights {number}"
    assert held(store) == (None, None)


def test_the_champion_moves_and_the_one_before_is_kept(store: Store, versions: list[int]) -> None:
    one, two, three = versions
    for version, expected in (
        (one, (one, None)), (one, (one, None)), (two, (two, one)), (two, (two, one)), (three, (three, two)),
        (two, (two, three)),
    ):  # fmt: skip
        store.make_champion(version, f"because of {version}")
        assert held(store) == expected
    client = MlflowClient(store.tracking_uri)
    assert client.get_model_version(MODEL, str(three)).tags["nightschool.decision"] == f"because of {three}"


def test_a_version_that_is_not_there_cannot_be_champion(store: Store, versions: list[int]) -> None:
    store.make_champion(versions[0], "first")
    with pytest.raises(MlflowException):
        store.make_champion(99, "a slip of the finger")
    assert held(store) == (versions[0], None)


def test_a_store_that_is_away_is_not_a_store_without_champion(
    store: Store, versions: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a night during an outage would promote its model as the first one, with nothing to compare it with."""
    store.make_champion(versions[0], "first")

    class Away(MlflowClient):
        def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
            raise MlflowException("the store is away", error_code=INTERNAL_ERROR)

    monkeypatch.setattr("tasks.tracking.mlflow_store.MlflowClient", Away)
    with pytest.raises((MlflowException, NightStopped)):
        Store(store.tracking_uri, tmp_path).holder_of(CHAMPION)
