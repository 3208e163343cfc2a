"""A tracking store that is away, at some time or all night, costs no night: same bits, nothing lost, nothing twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from flows.retrain_nightly import retrain_nightly
from tasks.errors import NightStopped
from tasks.night.report import NightReport
from tasks.recipes.recipe import Recipe
from tasks.services.databases import MLFLOW
from tasks.tracking.mlflow_store import Store
from tests.shortcuts import made_once
from tests.tasks.training_runs import Killed
from tests.tiny_recipe import tiny_recipe

STAGES = ["validate", "deduplicate", "split", "tokens", "inspect", "pretrain", "sft", "evaluate"]


@dataclass
class Outage:
    """Whether the store answers, decided anew at each of its calls."""

    is_away: Callable[[str], bool] = lambda call: False
    refused: int = 0

    def call(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*arguments: Any, **named: Any) -> Any:
            if self.is_away(name):
                self.refused += 1
                raise MlflowException("connection refused")
            return real(*arguments, **named)

        return answer


OUTAGE = Outage()


class UnsteadyClient:
    """MLflow's client, whose calls fail while the store is away."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._client = MlflowClient(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        return OUTAGE.call(name, real) if callable(real) else real


@dataclass(frozen=True)
class Home:
    path: Path
    recipe: Recipe

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.path}/mlflow/mlflow.db")


@pytest.fixture
def home(
    tmp_path: Path, shared_folder: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, prefect_server: None
) -> Iterator[Home]:
    folder = tmp_path / "home"
    (folder / "mlflow").mkdir(parents=True)
    shutil.copy(made_once(MLFLOW, shared_folder), folder / "mlflow" / "mlflow.db")
    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(folder))
    monkeypatch.setattr("tasks.tracking.client.MlflowClient", UnsteadyClient)
    OUTAGE.is_away, OUTAGE.refused = lambda call: False, 0
    yield Home(folder, recipe)
    OUTAGE.is_away = lambda call: False


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return tiny_recipe(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, prefect_server: None) -> NightReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSCHOOL_HOME", str(tmp_path_factory.mktemp("undisturbed") / "home"))
        return retrain_nightly(recipe=recipe)


def in_stage(home: Path, stage: str) -> bool:
    return any((home / "data").glob(f"{stage}@*.partial"))


def from_stage(home: Path, stage: str) -> bool:
    return any((home / "data").glob(f"{stage}@*"))


WHEN: dict[str, Callable[[Path], bool]] = {
    "at its start": lambda home: not from_stage(home, "validate"),
    "in the middle": lambda home: in_stage(home, "pretrain"),
    "at its end": lambda home: from_stage(home, "evaluate"),
    "for good": lambda home: True,
}


@pytest.mark.parametrize("when", WHEN)
def test_a_night_goes_to_its_end_and_everything_arrives_once(home: Home, when: str, undisturbed: NightReport) -> None:
    OUTAGE.is_away = lambda call: WHEN[when](home.path)
    first = retrain_nightly(recipe=home.recipe)
    assert OUTAGE.refused > 0
    names = [record.name for record in first.records]
    assert names[:8] == STAGES
    digests = {record.name: record.digest for record in undisturbed.records}
    for record in first.records:
        if record.name in ("split", "tokens", "pretrain", "sft"):
            assert record.digest == digests[record.name], "the same bits"
    waits = when in ("at its end", "for good")
    assert first.registered != waits
    if waits:
        assert "NOT REGISTERED YET" in first.as_text()
        assert "The next run in this home registers it and decides" in first.as_text()

    OUTAGE.is_away = lambda call: False
    second = retrain_nightly(recipe=home.recipe, again=True)
    assert second.registered
    assert all(record.reused for record in second.records if record.name in ("tokens", "pretrain", "sft", "evaluate"))
    again = retrain_nightly(recipe=home.recipe, again=True)
    assert [record.reused for record in again.records] == [True] * 9
    assert again.reports_waiting == 0
    assert len(home.client.search_model_versions("name='nightschool-tiny'")) == 1
    check_delivered(home, again)


def check_delivered(home: Home, report: NightReport) -> None:
    """Each stage has one run with all its metrics, every step once."""
    [experiment] = [e for e in home.client.search_experiments() if e.name == "nightschool"]
    children = home.client.search_runs([experiment.experiment_id], "tags.`nightschool.kind` = 'stage'")
    by_stage = {run.data.tags["nightschool.stage"]: run for run in children}
    assert len([run for run in children if run.data.tags["nightschool.stage"] == "pretrain"]) == 1
    [night] = home.client.search_runs([experiment.experiment_id], "tags.`nightschool.kind` = 'night'")
    for record in report.records:
        run = by_stage[record.name]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == night.info.run_id
        assert {key: run.data.metrics[key] for key in record.figures} == pytest.approx(dict(record.figures))
    steps = [m.step for m in home.client.get_metric_history(by_stage["pretrain"].info.run_id, "train/loss")]
    assert steps == list(range(1, 13)), "each once, in order: the last is the stage's figure"
    assert home.client.list_artifacts(by_stage["register"].info.run_id, "model")


def test_a_model_that_waits_is_judged_by_the_next_night_of_another_recipe(home: Home) -> None:
    OUTAGE.is_away = lambda call: True
    waiting = retrain_nightly(recipe=home.recipe)
    assert not waiting.registered
    OUTAGE.is_away = lambda call: False
    other = retrain_nightly(recipe=home.recipe, overrides={"sft.optim.peak_lr": 0.001})
    found = home.client.search_model_versions("name='nightschool-tiny'")
    versions = {int(version.version): version.tags["nightschool.digest"] for version in found}
    trained = [record.digest for report in (waiting, other) for record in report.records if record.name == "sft"]
    assert versions == {1: trained[0], 2: trained[1]}, "in the order of the nights, each once"
    [experiment] = [e for e in home.client.search_experiments() if e.name == "nightschool"]
    nights = home.client.search_runs([experiment.experiment_id], "tags.`nightschool.kind` = 'night'")
    assert [night.info.status for night in nights] == ["FINISHED"] * 2
    for night in nights:
        curve = [m.step for m in home.client.get_metric_history(night.info.run_id, "pretrain/loss_ema")]
        assert sorted(curve) == list(range(1, 13)), "each step once, though the night was concluded twice"
        assert night.data.metrics["promote/promoted"] in (0, 1)
    assert retrain_nightly(recipe=home.recipe, again=True).decision["version"] == 1


@pytest.mark.parametrize(
    "place",
    [
        "flows.judge_model.conclude_waiting",
        "tasks.night.conclusion.note_made",
        "tasks.night.conclusion.move_trunk",
        "tasks.night.conclusion.note_ended",
    ],
)
def test_a_kill_before_or_after_a_waiting_model_is_told_of_loses_nothing_of_its_night(
    home: Home, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    OUTAGE.is_away = lambda call: True
    waiting = retrain_nightly(recipe=home.recipe)
    OUTAGE.is_away = lambda call: False
    other = {"sft.optim.peak_lr": 0.001}

    def killed(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(place, killed)
        with pytest.raises(Killed):
            retrain_nightly(recipe=home.recipe, overrides=other)
    retrain_nightly(recipe=home.recipe, overrides=other)
    [version] = [v for v in home.client.search_model_versions("name='nightschool-tiny'") if int(v.version) == 1]
    night = home.client.get_run(Store(f"sqlite:///{home.path}/mlflow/mlflow.db", home.path).resolve(waiting.run_id))
    assert night.info.status == "FINISHED"
    assert night.data.metrics["promote/promoted"] in (0, 1)
    assert night.data.tags["nightschool.stage.register"] == version.run_id
    assert set(night.data.tags) >= {f"nightschool.stage.{name}" for name in STAGES}
    assert "Not registered yet" not in night.data.tags["mlflow.note.content"]
    text = Path(home.client.download_artifacts(night.info.run_id, f"tiny@{waiting.key}.md")).read_text()
    assert "| register |" in text
    assert "version 1" in text
    for key in ("pretrain/loss_ema", "sft/loss_ema"):
        steps = [m.step for m in home.client.get_metric_history(night.info.run_id, key)]
        assert sorted(steps) == sorted(set(steps)), "each step once"
    assert len(home.client.get_metric_history(night.info.run_id, "promote/promoted")) == 1
    assert not [path for path in (home.path / "nights").glob("*.json") if "waiting" in path.read_text()]


def test_a_model_that_is_refused_ends_no_later_night(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one whose export fails nor one whose folders were deleted."""
    OUTAGE.is_away = lambda call: True
    retrain_nightly(recipe=home.recipe)
    gone = retrain_nightly(recipe=home.recipe, overrides={"sft.optim.peak_lr": 0.002})
    shutil.rmtree(gone.records[6].path)
    OUTAGE.is_away = lambda call: False

    def refuse(*arguments: object) -> None:
        raise NightStopped("transformers computes other results")

    with monkeypatch.context() as patch:
        patch.setattr("flows.judge_model.register", refuse)
        with pytest.raises(NightStopped):  # tonight's own model is refused, too, and that ends the night
            retrain_nightly(recipe=home.recipe, overrides={"sft.optim.peak_lr": 0.001})
    assert retrain_nightly(recipe=home.recipe, overrides={"sft.optim.peak_lr": 0.001}).decision["version"] == 1
    assert not [path for path in (home.path / "nights").glob("*.json") if "waiting" in path.read_text()]
