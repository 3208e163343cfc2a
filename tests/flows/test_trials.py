"""A range test and a sweep on one home: what they leave, and what they leave alone."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from flows.find_lr import search_lr
from flows.sweep import sweep_settings
from tasks.errors import NightStopped
from tasks.recipes.recipe import Recipe
from tasks.trials.find_lr import LrReport
from tasks.trials.plan import RangeTest, Sweep
from tasks.trials.sweep_report import SweepReport
from tests.tiny_recipe import tiny_recipe

WILD = {"pretrain.optim.clip_norm": 1e9, "pretrain.precision": "fp32"}
"""With no bound to a step, a rate of 1e6 ends in no number."""
SWEEP = Sweep(over={"pretrain.optim.peak_lr": [0.01, 1e6], "model.num_experts_per_tok": [2]}, share=0.5, seeds=2)


@dataclasses.dataclass(frozen=True)
class Lived:
    """A home with a range test and a sweep, each run twice."""

    home: Path
    recipe: Recipe
    found: tuple[LrReport, LrReport]
    swept: tuple[SweepReport, SweepReport]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.home}/mlflow/mlflow.db")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[Lived]:
    folder = tmp_path_factory.mktemp("trials")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSCHOOL_HOME", str(folder / "home"))
        recipe = tiny_recipe(folder / "raw")
        test = RangeTest(num_steps=20, lr_min=1e-4)
        found = search_lr(recipe, test), search_lr(recipe, test)
        swept = tuple(sweep_settings(recipe.with_overrides(WILD), SWEEP) for _ in range(2))
        yield Lived(folder / "home", recipe, found, (swept[0], swept[1]))


def runs(lived: Lived, wanted: str) -> list[Run]:
    experiment = lived.client.get_experiment_by_name("nightschool")
    return lived.client.search_runs([experiment.experiment_id], wanted, order_by=["attributes.start_time ASC"])


def test_a_range_test_suggests_a_rate_on_a_run_of_its_own(lived: Lived) -> None:
    first, again = lived.found
    [run] = runs(lived, "tags.`nightschool.kind` = 'lr-search' and attributes.status = 'FINISHED'")
    assert first.run_id == again.run_id == run.info.run_id
    assert again.record.reused
    assert not first.record.reused
    assert run.data.params["suggestion.peak_lr"] == first.suggestion
    assert 1e-4 <= run.data.metrics["lr/suggestion"] * 2 == pytest.approx(run.data.metrics["lr/steepest"])
    assert run.data.metrics["lr/steepest"] <= run.data.metrics["lr/limit"] <= 1
    curve = lived.client.get_metric_history(run.info.run_id, "lr/loss")
    assert [m.step for m in curve] == list(range(1, len(curve) + 1))
    assert 5 < len(curve) <= first.record.counts["steps"] <= 20
    assert [f.path for f in lived.client.list_artifacts(run.info.run_id, "figures")] == ["figures/lr-range.png"]
    assert f"--set pretrain.optim.peak_lr={first.suggestion}" in first.as_text()
    assert f"| use it | --set pretrain.optim.peak_lr={first.suggestion} |" in first.as_markdown()
    lived.recipe.with_overrides({"pretrain.optim.peak_lr": float(first.suggestion)})


def test_a_range_without_a_fall_is_a_message(lived: Lived) -> None:
    with pytest.raises(NightStopped, match=r"find-lr: the loss never falls between learning rates 1 and .*lr_min"):
        search_lr(lived.recipe, RangeTest(num_steps=10, lr_min=1, lr_max=10))


def test_every_combination_of_a_sweep_is_a_child_run(lived: Lived) -> None:
    report = lived.swept[0]
    [run] = runs(lived, "tags.`nightschool.kind` = 'sweep' and params.`sweep.rungs` = '1'")
    assert run.info.run_id == report.run_id
    assert run.info.status == "FINISHED"
    children = runs(lived, f"tags.`mlflow.parentRunId` = '{report.run_id}'")
    assert {child.data.tags["nightschool.stage"] for child in children} == {"sweep-pretrain"}
    settings = [(c.data.params["pretrain.optim.peak_lr"], c.data.params["pretrain.seed"]) for c in children]
    assert settings == [("0.01", "1"), ("0.01", "2"), ("1000000.0", "1"), ("1000000.0", "2")]
    names = [child.info.run_name for child in children]
    assert len(set(names)) == 4, "each says what it tries"
    for name, (rate, seed) in zip(names, settings, strict=True):
        assert f"peak_lr={rate}" in name
        assert f"seed={seed}" in name
    assert [child.info.status for child in children] == ["FINISHED"] * 2 + ["FAILED"] * 2
    assert {c.data.params["stage.steps"] for c in children[:2]} == {"6"}
    assert run.data.metrics["sweep/trainings"] == 4
    assert run.data.metrics["sweep/diverged"] == 2
    bpb = [child.data.metrics["val/bpb"] for child in children[:2]]
    assert run.data.metrics["sweep/best_bpb"] == pytest.approx(sum(bpb) / 2)
    assert run.data.metrics["sweep/spread_bpb"] == pytest.approx(abs(bpb[0] - bpb[1]))
    assert len(run.data.metrics) <= 40


def test_a_combination_that_diverges_is_a_row_of_the_table(lived: Lived) -> None:
    report = lived.swept[0]
    text = report.as_text()
    assert "2 of 2 diverged" in text
    assert "best  --set pretrain.optim.peak_lr=0.01 --set model.num_experts_per_tok=2" in text
    assert report.exit_code == 0
    rows = list(csv.DictReader(report.csv_path.open(encoding="utf-8")))
    assert [row["pretrain.optim.peak_lr"] for row in rows] == ["0.01", "0.01", "1000000.0", "1000000.0"]
    assert [row["val_bpb"] == "nan" for row in rows] == [False, False, True, True]
    assert all("lower optim.peak_lr" in row["diverged"] for row in rows[2:])
    assert {f.path for f in lived.client.list_artifacts(report.run_id)} == {
        report.csv_path.name, report.csv_path.with_suffix(".md").name,
    }  # fmt: skip


def test_a_sweep_again_costs_nothing_and_adds_no_run(lived: Lived) -> None:
    first, again = lived.swept
    assert again.as_text() == first.as_text()
    assert all(t.record.reused for t in again.tried if t.record)
    children = runs(lived, f"tags.`mlflow.parentRunId` = '{first.run_id}'")
    assert [child.data.tags["nightschool.stage"] for child in children] == ["sweep-pretrain"] * 4


def test_the_best_of_a_short_rung_are_trained_longer_and_again_the_same(lived: Lived) -> None:
    over = {"pretrain.optim.peak_lr": [1e-9, 0.01, 1e6], "model.num_experts_per_tok": [2]}
    sweep = Sweep(over=over, share=0.9, rungs=2, equal="seconds")
    report, again = (sweep_settings(lived.recipe.with_overrides(WILD), sweep) for _ in range(2))
    trained = [(t.variant.rung, t.variant.values["pretrain.optim.peak_lr"]) for t in report.tried]
    assert trained == [(0, 1e-9), (0, 0.01), (0, 1e6), (1, 0.01), (1, 1e-9)], "what diverged is not tried again"
    first, last = report.tried[1].record, report.tried[3].record
    assert first
    assert last
    assert last.counts["steps"] > 2 * first.counts["steps"]
    assert report.best
    assert report.best.bpb == (last.figures["val/bpb"],)
    assert [t.variant.key for t in again.tried] == [t.variant.key for t in report.tried], "by the noted pace"
    assert all(t.record.reused for t in again.tried if t.record)
    [run] = runs(lived, "params.`sweep.rungs` = '2'")
    assert run.data.metrics["sweep/trainings"] == 5


def test_trials_prepare_data_once_and_make_no_night_and_no_model(lived: Lived) -> None:
    made = [path.name.partition("@")[0] for path in (lived.home / "data").iterdir() if path.suffix != ".partial"]
    prepared = ["deduplicate", "split", "tokens", "validate"]
    assert sorted(name for name in made if not name.startswith("sweep-")) == sorted([*prepared, "find-lr"])
    children = runs(lived, f"tags.`mlflow.parentRunId` = '{lived.found[0].run_id}'")
    assert [c.data.tags["nightschool.stage"] for c in children] == [
        "validate", "deduplicate", "split", "tokens", "find-lr",
    ]  # fmt: skip
    assert not (lived.home / "nights").exists()
    assert runs(lived, "tags.`nightschool.kind` = 'night'") == []
    assert lived.client.search_registered_models() == []
