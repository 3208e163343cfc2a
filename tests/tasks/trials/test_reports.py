"""Reports of trials: the best setting first, what is not shown by seeds is not claimed, and tables hold any text."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.trials import sweep as trials
from tasks.trials.find_lr import CURVE, LrReport, read_curve
from tasks.trials.plan import Sweep, Variant, settings_of, variants
from tasks.trials.sweep import Tried, try_settings
from tasks.trials.sweep_report import SweepReport
from tests.tasks.pages.readers import cells_of_markdown
from tests.tasks.rows import stage_record
from tests.tiny_recipe import tiny_recipe

PEAK = "pretrain.optim.peak_lr"
Scores = Mapping[float, Sequence[float | None]]
"""Bits per byte of each seed by learning rate; None for a training that diverged."""


def curve_of(folder: Path, seconds: float) -> None:
    """Two optimizer steps that take so long together."""
    (folder / "logs").mkdir(parents=True)
    points = [{"step": step, "train/tokens_seen": 60 * step, "train/tokens_per_s": 120 / seconds} for step in (1, 2)]
    (folder / "logs" / "curve.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))


def sweep_report(folder: Path, scores: Scores) -> SweepReport:
    sweep = Sweep(over={PEAK: list(scores)}, share=0.5, seeds=len(next(iter(scores.values()))))
    recipe = tiny_recipe(folder / "raw")
    tried = []
    all_scores = [score for by_seed in scores.values() for score in by_seed]
    for number, (variant, score) in enumerate(
        zip(variants(recipe, sweep, settings_of(recipe, sweep)), all_scores, strict=True)
    ):
        record = stage_record(folder / f"pretrain@{number}", figures={"val/bpb": score}, run_id=f"run-{number}")
        if score is not None:
            curve_of(record.path, number + 1)
        tried.append(Tried(variant, record) if score is not None else Tried(variant, None, "step 3: loss nan"))
    return SweepReport(
        recipe="demo", key="0123", sweep=sweep, tried=tried, csv_path=Path("/home/sweep.csv"),
        tracking_uri="http://host:5000", run_id="r1",
    )  # fmt: skip


def test_the_best_setting_comes_first_and_a_diverged_one_last(tmp_path: Path) -> None:
    report = sweep_report(tmp_path, {0.1: (None, 2.5), 0.01: (2.0, 2.1), 0.02: (1.9, 1.95)})
    title, _, *ranking, _, conclusion, _, table, tracking = report.as_text().splitlines()
    assert title == "Sweep demo 0123: 6 trainings of 50% of pretraining"
    assert [line.split() for line in ranking] == [
        ["setting", "val", "bpb", "spread", "seconds"],
        [f"{PEAK}=0.02", "1.9250", "0.0500", "5.5"],
        [f"{PEAK}=0.01", "2.0500", "0.1000", "3.5"],
        [f"{PEAK}=0.1", "1", "of", "2", "diverged", "-", "2.0"],
    ]
    assert len({len(line) for line in ranking}) == 1
    assert conclusion == f"best  --set {PEAK}=0.02   (ahead by 0.1250, above what seeds differ by: 0.1000)"
    assert (table, tracking) == ("table     /home/sweep.csv", "tracking  http://host:5000 (run r1)")
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("scores", "conclusion"),
    [
        ({0.1: (2.0,), 0.2: (1.0,)}, f"best  --set {PEAK}=0.2   (one seed each; --seeds 3 shows what chance does)"),
        ({0.1: (2.0, 2.2), 0.2: (2.0, 2.3)},
         f"best  --set {PEAK}=0.1   (ahead by 0.0500, no more than seeds differ by: 0.3000)"),
        ({0.1: (None, 2.0), 0.2: (2.0, 2.1)}, f"best  --set {PEAK}=0.2   (no other setting ended after as many steps)"),
        ({0.1: (2.0,), 0.2: (2.0,), 0.3: (2.5,)}, f"best  --set {PEAK}=0.1   (level with {PEAK}=0.2)"),
        ({0.1: (None,), 0.2: (None,)}, "every setting diverged; try lower learning rates"),
    ],
)  # fmt: skip
def test_the_conclusion_claims_what_seeds_show(tmp_path: Path, scores: Scores, conclusion: str) -> None:
    report = sweep_report(tmp_path, scores)
    assert report.conclusion == conclusion
    assert (report.exit_code != 0) == (report.best is None)


def test_a_setting_counts_in_the_last_rung_that_trained_it(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "raw")
    sweep = Sweep(over={PEAK: [0.1, 0.2, 0.3]}, share=0.3, rungs=2, seeds=2)
    settings = settings_of(recipe, sweep)
    trained = [*variants(recipe, sweep, settings, 0), *variants(recipe, sweep, settings[1:2], 1)]
    tried = [
        Tried(variant, stage_record(tmp_path / f"{number}", figures={"val/bpb": score}, run_id=f"run-{number}"))
        for number, (variant, score) in enumerate(zip(trained, (2.0, 1.9, 1.95, 2.5, 2.6), strict=True))
    ]
    for number, one in enumerate(tried):
        assert one.record
        curve_of(one.record.path, number + 1)
    report = replace(sweep_report(tmp_path / "other", {0.1: (2.0,)}), sweep=sweep, tried=tried)
    assert report.as_text().splitlines()[0] == "Sweep demo 0123: 5 trainings of 10%, 30% of pretraining"
    cells = [(row[0], row[1], row[-1]) for row in report.ranking.rows]
    assert cells == [(f"{PEAK}=0.2", "2.5500", "2"), (f"{PEAK}=0.3", "1.9500", "1"), (f"{PEAK}=0.1", "2.0000", "1")]
    assert report.conclusion == f"best  --set {PEAK}=0.2   (no other setting ended after as many steps)"
    lines = list(csv.DictReader(io.StringIO(report.as_csv())))
    assert [line["rung"] for line in lines] == ["1", "1", "1", "2", "2"]
    assert int(lines[3]["num_tokens"]) == pytest.approx(3 * int(lines[0]["num_tokens"]), abs=2)


def test_a_score_that_is_not_finite_is_a_divergence(tmp_path: Path) -> None:
    report = sweep_report(tmp_path, {0.1: (math.nan,), 0.2: (math.inf,), 0.3: (3.0,)})
    assert [result.num_diverged for result in report.results] == [1, 1, 0]
    assert report.best is not None
    assert report.best.setting == f"{PEAK}=0.3"


def test_every_training_is_a_line_of_the_csv_file_and_every_setting_one_of_markdown(tmp_path: Path) -> None:
    report = sweep_report(tmp_path, {0.1: (2.0, None), 0.2: (1.5, 1.0)})
    lines = list(csv.DictReader(io.StringIO(report.as_csv())))
    assert [(line[PEAK], line["seed"], line["val_bpb"]) for line in lines] == [
        ("0.1", "1", "2.0"), ("0.1", "2", "nan"), ("0.2", "1", "1.5"), ("0.2", "2", "1.0"),
    ]  # fmt: skip
    assert [line["run_id"] for line in lines] == ["run-0", "", "run-2", "run-3"]
    _, table, _ = report.as_markdown().split("\n\n")
    assert [row[0] for row in cells_of_markdown(table)] == ["setting", f"{PEAK}=0.2", f"{PEAK}=0.1"]


def lr_report(folder: Path, **changes: Any) -> LrReport:
    record = stage_record(folder / "find-lr@1", figures={"lr/suggestion": 0.01234}, headline="peak_lr 0.012: a|b")
    return replace(
        LrReport(recipe="demo", key="0123", record=record, tracking_uri="sqlite:////home/mlflow.db", run_id="r1"),
        **changes,
    )


def test_a_suggested_rate_comes_with_the_commands_that_use_it(tmp_path: Path) -> None:
    report = lr_report(tmp_path)
    assert report.as_text().splitlines() == [
        "Learning rate of demo 0123",
        "  suggestion   peak_lr 0.012: a|b",
        f"  use it       --set {PEAK}=0.012",
        f"  look nearer  python -m flows sweep demo --over {PEAK}=0.006,0.012,0.024",
        "  tracking     sqlite:////home/mlflow.db (run r1, figures/lr-range.png)",
    ]
    _, table = report.as_markdown().split("\n\n")
    assert cells_of_markdown(table)[1:3] == [["suggestion", "peak_lr 0.012: a|b"], ["use it", f"--set {PEAK}=0.012"]]


def test_steps_without_a_finite_loss_are_no_points_of_the_curve(tmp_path: Path) -> None:
    record = lr_report(tmp_path).record
    record.path.mkdir()
    content = {"lr": [0.1, 0.2, 0.3], "loss": [3.0, math.inf, math.nan], "smoothed": [3.0, 2.9, 2.8]}
    (record.path / CURVE).write_text(json.dumps(content))
    assert list(read_curve(record)) == [{"rate": 0.1, "loss": 3.0, "smoothed": 3.0}]


def test_the_recipe_as_it_is_stays_to_the_last_rung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it is the worst of four: something has to be compared with."""
    recipe = tiny_recipe(tmp_path / "raw")
    sweep = Sweep(over={PEAK: [0.1, 0.2, 0.3]}, alone=True, rungs=2, seeds=2)

    def tried(night: Any, variant: Variant, tokens: Any) -> Tried:
        score = variant.values.get(PEAK, 9.0)
        return Tried(variant, stage_record(tmp_path, figures={"val/bpb": score}))

    monkeypatch.setattr(trials, "try_variant", tried)
    done = list(try_settings(SimpleNamespace(recipe=recipe), sweep, stage_record(tmp_path)))
    assert [dict(one.variant.values) for one in done if one.variant.rung == 1] == [{PEAK: 0.1}] * 2 + [{}] * 2
