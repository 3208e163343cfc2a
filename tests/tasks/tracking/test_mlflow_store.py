"""What a stage reports arrives in its run, once and in order."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tasks.tracking.client import EXPERIMENT, experiment_id
from tasks.tracking.delivery import BATCH_POINTS, HOME
from tasks.tracking.mlflow_store import Store
from tasks.tracking.points import LOAD_SAMPLED
from tasks.tracking.tracker import DictTracker, Tracker
from tests.tasks.rows import stage_record


def run_of(store: Store, run_id: str) -> Run:
    return MlflowClient(store.tracking_uri).get_run(run_id)


def history(store: Store, run_id: str, key: str = "train/loss") -> list[tuple[int, float]]:
    """(step, value) as logged, in order of step."""
    return sorted((m.step, m.value) for m in MlflowClient(store.tracking_uri).get_metric_history(run_id, key))


def report_everything(tracker: Tracker, folder: Path) -> None:
    """Something of each kind that a stage reports."""
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


def test_everything_reported_appears_in_the_run(store: Store, tmp_path: Path) -> None:
    run_id = store.start_run("tokens-0123", {"nightschool.stage": "tokens"})
    report_everything(store.tracker(run_id), tmp_path)
    run, client = run_of(store, run_id), MlflowClient(store.tracking_uri)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "tokens-0123"
    assert run.data.params["stage.kept"] == "3"
    assert len(run.data.params["long"]) == 6_000
    assert run.data.params["long"].endswith("x… (6,001 characters in all)")
    assert Path(client.download_artifacts(run_id, "parameters/long.txt")).read_text() == "x" * 6_001
    assert run.data.metrics == {"val/bpb": 2.5, "train/loss": 4.0, "train/lr": 0.1}
    assert run.data.tags["nightschool.model"] == "challenger"
    assert run.data.tags["nightschool.stage"] == "tokens"
    assert {item.path for item in client.list_artifacts(run_id)} == {"figure.png", "figures", "model", "parameters"}
    copy = Path(client.download_artifacts(run_id, "model/weights", str(tmp_path)))
    assert copy.read_bytes() == b"weights"
    [dataset] = run.inputs.dataset_inputs
    assert dataset.dataset.name == "rows"
    assert dataset.dataset.digest == ("0123456789" * 7)[:32]
    assert tmp_path.as_uri() in dataset.dataset.source
    assert [(tag.key, tag.value) for tag in dataset.tags] == [("mlflow.data.context", "training")]


def test_a_tracker_leaves_the_process_as_it_was(store: Store) -> None:
    """MLflow's own way to set where runs go is an environment variable that outlives the run."""
    before = dict(os.environ), mlflow.get_tracking_uri()
    tracker = store.tracker(store.start_run("sft-0123", {}), system_metrics=True)
    tracker.close("FINISHED")
    assert (dict(os.environ), mlflow.get_tracking_uri()) == before


def test_the_double_keeps_everything_too(tmp_path: Path) -> None:
    tracker = DictTracker()
    report_everything(tracker, tmp_path)
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


def test_an_experiment_that_another_night_makes_meanwhile_is_taken(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, look, asked = store.experiment_id(), MlflowClient.get_experiment_by_name, iter([None])
    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", lambda self, name: next(asked, look(self, name)))
    assert experiment_id(MlflowClient(store.tracking_uri), None) == made


def test_a_full_batch_is_delivered_before_the_end(store: Store) -> None:
    """So that a night can be watched, and a killed one has left something."""
    run_id = store.start_run("stage", {})
    tracker = store.tracker(run_id)
    for step in range(1, BATCH_POINTS):
        tracker.metrics({"train/loss": 1.0}, step)
    assert history(store, run_id) == []
    tracker.metrics({"train/loss": 1.0}, BATCH_POINTS)
    assert [step for step, _ in history(store, run_id)] == list(range(1, BATCH_POINTS + 1))


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
    assert history(store, run_id, "val/perplexity") == [(0, 9.0)], "what has no step is reported again"


def test_step_0_is_not_logged_twice_either(store: Store) -> None:
    """A stage that was killed before its first checkpoint validates once more before it trains."""
    run_id = store.start_run("stage", {})
    for _ in range(2):
        store.tracker(run_id).metrics({"val/bpb": 3.0}, step=0)
        store.tracker(run_id).close("KILLED")
        assert store.reopen(run_id)
    store.tracker(run_id).metrics({"plan/steps": 9.0})
    store.tracker(run_id).close("FINISHED")
    assert history(store, run_id, "val/bpb") == [(0, 3.0)]
    assert history(store, run_id, "plan/steps") == [(0, 9.0)]


def test_steps_that_are_made_again_after_a_roll_back_are_logged_in_a_run_that_was_reopened(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the roll back came before or after the interruption; the steps logged before that stay single."""
    clock = count(1)
    monkeypatch.setattr("tasks.tracking.spool.time", SimpleNamespace(time=lambda: float(next(clock))))
    run_id = store.start_run("stage", {})

    def make(first: int, last: int, kept: float) -> None:
        for step in range(first, last + 1):
            store.tracker(run_id).metrics({"train/loss": step + kept}, step)

    make(1, 10, 0.0)
    store.tracker(run_id).back(5)
    make(6, 7, 0.5)  # the run is killed here: steps 8 to 10 stand in MLflow, as they were before the roll back
    store.tracker(run_id).close("KILLED")
    assert store.reopen(run_id)
    make(6, 9, 0.5)
    assert newest(store, run_id) == {step: step + (0.5 if step > 5 else 0.0) for step in range(1, 10)} | {10: 10.0}
    make(10, 10, 0.5)
    store.tracker(run_id).close("KILLED")
    assert store.reopen(run_id)
    make(9, 10, 0.5)
    store.tracker(run_id).back(8)
    make(9, 12, 0.75)
    store.tracker(run_id).close("FINISHED")
    shown = {step: step + (0.75 if step > 8 else 0.5 if step > 5 else 0.0) for step in range(1, 13)}
    assert newest(store, run_id) == shown
    steps = Counter(step for step, _ in history(store, run_id))
    assert steps == {**dict.fromkeys(range(1, 6), 1), 6: 2, 7: 2, 8: 2, 9: 3, 10: 3, 11: 1, 12: 1}, "one for each time"


def newest(store: Store, run_id: str) -> dict[int, float]:
    """What a chart ends each step with."""
    store.deliver()
    points = MlflowClient(store.tracking_uri).get_metric_history(run_id, "train/loss")
    return {m.step: m.value for m in sorted(points, key=lambda m: m.timestamp)}


def test_a_curve_that_is_reported_again_is_there_once(store: Store) -> None:
    """By a process that was killed before it noted that it had."""
    run_id = store.start_run("night", {})
    whole = [(step, {"pretrain/bpb": 3.0 / step, "pretrain/loss_ema": 1.0}) for step in range(1, 8)]
    store.tracker(run_id).curve(whole[:4])
    store.tracker(run_id).close("KILLED")
    assert store.reopen(run_id)
    for points in (whole, whole):
        store.tracker(run_id).curve(points)
    assert history(store, run_id, "pretrain/bpb") == [(step, 3.0 / step) for step in range(1, 8)]
    double = DictTracker()
    for points in (whole[:4], whole, whole):
        double.curve(points)
    assert double.logged_metrics["pretrain/bpb"] == [(step, 3.0 / step) for step in range(1, 8)]


def test_final_figures_end_a_curve_and_do_not_repeat_it(store: Store) -> None:
    run_id = store.start_run("stage", {})
    tracker = store.tracker(run_id)
    for step in (0, 1, 2):
        tracker.metrics({"val/bpb": 3.0 - step}, step)
    tracker.final({"val/bpb": 1.0, "outcome/steps": 2.0}, step=2)
    tracker.close("KILLED")
    assert history(store, run_id, "val/bpb") == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert history(store, run_id, "outcome/steps") == [(2, 2.0)]
    assert store.reopen(run_id)
    store.tracker(run_id).final({"val/bpb": 1.0, "outcome/steps": 2.0, "change/bpb_after": 1.5}, step=2)
    assert history(store, run_id, "outcome/steps") == [(2, 2.0)]
    assert history(store, run_id, "change/bpb_after") == [(2, 1.5)]


def test_samples_of_the_load_are_counted_on_when_a_run_goes_on(store: Store) -> None:
    run_id = store.start_run("stage", {})
    for first in (0, 3, 6):
        tracker = store.tracker(run_id)
        for number in range(3):
            tracker.metrics({LOAD_SAMPLED: float(first + number)}, number)
        tracker.close("KILLED")
        assert store.reopen(run_id)
    assert history(store, run_id, LOAD_SAMPLED) == [(n, float(n)) for n in range(9)]


def test_an_unknown_run_cannot_be_reopened(store: Store) -> None:
    assert not store.reopen("0123456789abcdef0123456789abcdef")


@pytest.mark.parametrize("name", ["home", "two words", "Tom's models", 'say "hi"'])
def test_only_running_runs_of_this_home_are_orphans(store: Store, tmp_path: Path, name: str) -> None:
    address = store.tracking_uri
    store, other = (Store(address, folder) for folder in (tmp_path / name, tmp_path / f"{name} too"))
    mine = [store.start_run(f"mine {n}", {}) for n in range(2)]
    done = store.start_run("done", {})
    store.tracker(done).close("FINISHED")
    theirs = other.start_run("theirs", {})
    nobodys = other.start_run("of nobody", {})
    MlflowClient(address).delete_tag(nobodys, HOME)
    assert store.close_orphans() == 2
    assert [run_of(store, i).info.status for i in mine] == ["KILLED", "KILLED"]
    assert [run_of(store, i).info.status for i in (done, theirs, nobodys)] == ["FINISHED", "RUNNING", "RUNNING"]
    assert store.close_orphans() == 0


@pytest.mark.parametrize("chosen", ["", "relative/folder", "s3://bucket/nights/"])
def test_artifacts_beside_a_database_elsewhere_never_lie_in_the_current_folder(
    tmp_path: Path, mlflow_tables: Path, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    """Under the home, or where the setting says; MLflow's own choice is `mlruns` of whoever runs."""
    here, home = tmp_path / "project", tmp_path / "home"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("NIGHTSCHOOL_ARTIFACTS", chosen)
    monkeypatch.setattr(
        "tasks.tracking.delivery.require_driver", lambda _: None
    )  # it is told, and nothing written there
    shutil.copy(mlflow_tables, tmp_path / "elsewhere.db")
    store = Store(f"sqlite:///{tmp_path / 'elsewhere.db'}", home)
    expected = {
        "": (home / "mlflow" / "artifacts").as_uri(),
        "relative/folder": (here / "relative" / "folder").as_uri(),
        "s3://bucket/nights/": "s3://bucket/nights",
    }[chosen]
    assert store.check()
    run_id = store.start_run("night", {})
    assert run_of(store, run_id).info.artifact_uri.startswith(f"{expected}/")
    if not chosen:
        (tmp_path / "summary.md").write_text("# Night")
        store.tracker(run_id).artifact(tmp_path / "summary.md")
        assert [path.name for path in (home / "mlflow" / "artifacts").rglob("*.md")] == ["summary.md"]
        assert list(here.iterdir()) == []


def test_an_experiment_whose_artifacts_lie_elsewhere_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert store.check()
    assert not caplog.records
    monkeypatch.setenv("NIGHTSCHOOL_ARTIFACTS", str(tmp_path / "later"))
    assert store.check()
    assert f"not to {(tmp_path / 'later').as_uri()}" in caplog.text
