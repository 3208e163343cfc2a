"""A twin beside a night, a range test and a sweep on the same home: what they leave, and what they leave alone."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from flows.find_lr import search_lr
from flows.retrain_nightly import retrain_nightly
from flows.sweep import sweep_settings
from tasks.answers import who_ate
from tasks.artifacts import StageRecord
from tasks.errors import Diverged, NightStopped
from tasks.find_lr import LrReport
from tasks.recipe import Recipe
from tasks.report import NightReport
from tasks.sweep_report import SweepReport
from tasks.trial_plan import RangeTest, Sweep
from tasks.twin import TwinComparison
from tests.tiny_recipe import tiny_recipe

OWN = ["validate", "deduplicate", "split", "tokens", "inspect", "pretrain", "sft", "evaluate", "register"]
TWIN = ["twin-pretrain", "twin-sft", "twin-evaluate"]
WILD = {"pretrain.optim.clip_norm": 1e30, "pretrain.precision": "fp32"}
"""With no bound to a step, a rate of 1e30 ends in no number."""
SWEEP = Sweep(over={"pretrain.optim.peak_lr": [0.01, 1e30], "model.num_experts_per_tok": [2]}, share=0.5, seeds=2)


@dataclasses.dataclass(frozen=True)
class Lived:
    """A home with a range test and a sweep before its first night, and that night's twin, each run twice."""

    home: Path
    recipe: Recipe
    found: tuple[LrReport, LrReport]
    swept: tuple[SweepReport, SweepReport]
    plain: NightReport
    twins: tuple[NightReport, NightReport]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.home}/mlflow/mlflow.db")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[Lived]:
    folder = tmp_path_factory.mktemp("trials")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSCHOOL_HOME", str(folder / "home"))
        recipe = tiny_recipe(folder / "raw")
        test, with_twin = RangeTest(num_steps=20, lr_min=1e-4), dataclasses.replace(recipe, twin=True)
        found = search_lr(recipe, test), search_lr(recipe, test)
        swept = tuple(sweep_settings(recipe.with_overrides(WILD), SWEEP) for _ in range(2))
        yield Lived(
            folder / "home", recipe, found, (swept[0], swept[1]), retrain_nightly(recipe),
            (retrain_nightly(with_twin), retrain_nightly(with_twin)),
        )  # fmt: skip


def runs(lived: Lived, wanted: str) -> list[Run]:
    experiment = lived.client.get_experiment_by_name("nightschool")
    return lived.client.search_runs([experiment.experiment_id], wanted, order_by=["attributes.start_time ASC"])


def comparison(report: NightReport) -> TwinComparison:
    assert isinstance(report.twin, TwinComparison)
    return report.twin


def test_a_twin_adds_stages_of_its_own_and_changes_none(lived: Lived) -> None:
    first, again = lived.twins
    assert lived.plain.twin is None
    assert [r.stage for r in lived.plain.records] == OWN
    assert [r.stage for r in first.records] == OWN + TWIN
    assert [r.reused for r in first.records] == [True] * len(OWN) + [False] * len(TWIN)
    assert all(r.reused for r in again.records)
    assert first.records[: len(OWN)] == lived.plain.records
    assert first.decision == lived.plain.decision
    assert again.run_id == first.run_id != lived.plain.run_id


def test_a_twin_differs_by_its_experts_alone(lived: Lived) -> None:
    by_stage = {r.stage: r for r in lived.twins[0].records}
    for stage in ("pretrain", "sft"):
        ours, twins = by_stage[stage], by_stage[f"twin-{stage}"]
        assert twins.config["train"] == ours.config["train"]
        assert twins.config["model"] == ours.config["model"] | {"dense": True}
        assert twins.inputs["tokens"] == ours.inputs["tokens"]
        assert twins.counts["steps"] == ours.counts["steps"]
        assert twins.counts["tokens_seen"] == ours.counts["tokens_seen"]
    assert by_stage["twin-sft"].inputs["pretrained"] == by_stage["twin-pretrain"].digest


def test_the_night_says_what_the_experts_are_worth(lived: Lived) -> None:
    report, twin = lived.twins[0], comparison(lived.twins[0])
    assert twin.lower_bpb <= twin.difference_bpb <= twin.upper_bpb
    assert twin.mixture_bpb - twin.twin_bpb == pytest.approx(twin.difference_bpb)
    [run] = runs(lived, f"attributes.run_id = '{report.run_id}'")
    metrics = run.data.metrics
    assert {key: metrics[key] for key in twin.as_metrics()} == pytest.approx(twin.as_metrics())
    assert metrics["val/bpb"] == twin.mixture_bpb == report.records[7].figures["val/bpb"]
    assert {"pretrain/bpb", "twin-pretrain/bpb", "sft/bpb", "twin-sft/bpb"} <= metrics.keys()
    assert len(metrics) <= 40
    for stage, total in (("", "twin/mixture_seconds"), ("twin-", "twin/seconds")):
        of_stages = [r.run_id for r in report.records if r.stage in (f"{stage}pretrain", f"{stage}sft")]
        outcomes = [lived.client.get_run(run_id).data.metrics["outcome/seconds"] for run_id in of_stages]
        assert metrics[total] == pytest.approx(sum(outcomes))
    for told in (report.as_text(), report.as_markdown()):
        assert all(said in told for said in (twin.verdict, twin.price, twin.sizes))
    assert twin.verdict in run.data.tags["nightschool.twin"]


def test_a_twin_is_tracked_and_never_registered(lived: Lived) -> None:
    children = runs(lived, f"tags.`mlflow.parentRunId` = '{lived.twins[0].run_id}'")
    assert [child.data.tags["nightschool.stage"] for child in children] == TWIN
    assert all(child.data.params["model.dense"] == "true" for child in children)
    assert children[-1].data.tags["nightschool.model"] == "twin"
    assert len(lived.client.search_model_versions("name='nightschool'")) == 1


def test_what_a_twin_ate_can_be_asked(lived: Lived) -> None:
    twin_pretrain, twin_sft = lived.twins[0].records[9:11]
    first = who_ate(lived.home, twin_sft.run_id)[0]
    assert twin_pretrain.path.name in first
    assert twin_sft.path.name in first


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


def test_data_that_a_trial_prepared_is_the_night_s(lived: Lived) -> None:
    assert [r.reused for r in lived.plain.records[:5]] == [True] * 4 + [False]
    children = runs(lived, f"tags.`mlflow.parentRunId` = '{lived.found[0].run_id}'")
    assert [child.data.tags["nightschool.stage"] for child in children] == [*OWN[:4], "find-lr"]


def test_a_range_without_a_fall_is_a_message(lived: Lived) -> None:
    with pytest.raises(NightStopped, match=r"find-lr: the loss never falls between learning rates 1 and .*lr_min"):
        search_lr(lived.recipe, RangeTest(num_steps=10, lr_min=1, lr_max=10))


def test_every_combination_of_a_sweep_is_a_child_run(lived: Lived) -> None:
    report = lived.swept[0]
    [run] = runs(lived, "tags.`nightschool.kind` = 'sweep'")
    assert run.info.run_id == report.run_id
    assert run.info.status == "FINISHED"
    children = runs(lived, f"tags.`mlflow.parentRunId` = '{report.run_id}'")
    assert {child.data.tags["nightschool.stage"] for child in children} == {"sweep-pretrain"}
    settings = [(c.data.params["pretrain.optim.peak_lr"], c.data.params["pretrain.seed"]) for c in children]
    assert settings == [("0.01", "1"), ("0.01", "2"), ("1e+30", "1"), ("1e+30", "2")]
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
    rows = list(csv.DictReader(report.table.open(encoding="utf-8")))
    assert [row["pretrain.optim.peak_lr"] for row in rows] == ["0.01", "0.01", "1e+30", "1e+30"]
    assert [row["val_bpb"] == "nan" for row in rows] == [False, False, True, True]
    assert all("lower optim.peak_lr" in row["diverged"] for row in rows[2:])
    assert {f.path for f in lived.client.list_artifacts(report.run_id)} == {
        report.table.name, report.table.with_suffix(".md").name,
    }  # fmt: skip


def test_a_sweep_again_costs_nothing_and_adds_no_run(lived: Lived) -> None:
    first, again = lived.swept
    assert again.as_text() == first.as_text()
    assert all(t.record.reused for t in again.tried if t.record)
    assert len(runs(lived, "tags.`nightschool.stage` = 'sweep-pretrain'")) == 4


def test_a_twin_that_diverges_is_an_answer(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: object) -> None:
        raise Diverged("twin-pretrain: step 7: loss inf")

    monkeypatch.setattr("flows.train_twin.train_model", diverge)
    recipe = dataclasses.replace(lived.recipe, twin=True).with_overrides({"promote.seed": 7, "promote.resamples": 100})
    report = retrain_nightly(recipe)
    assert [r.stage for r in report.records] == OWN
    assert "nothing to compare with: twin-pretrain: step 7: loss inf" in report.as_text()
    [run] = runs(lived, f"attributes.run_id = '{report.run_id}'")
    assert run.info.status == "FINISHED"
    assert "loss inf" in run.data.tags["nightschool.twin"]
    assert not [key for key in run.data.metrics if key.startswith("twin")]


def test_trials_leave_nights_and_models_alone(lived: Lived) -> None:
    assert {path.name.partition("@")[0] for path in (lived.home / "nights").iterdir()} == {"tiny"}
    assert [run.info.run_id for run in runs(lived, "tags.`nightschool.kind` = 'night'")][:2] == [
        lived.plain.run_id, lived.twins[0].run_id,
    ]  # fmt: skip
    folders = [StageRecord.read(folder) for folder in (lived.home / "data").glob("pretrain@*")]
    assert [record.path.name for record in folders if record] == [lived.plain.records[5].path.name]
