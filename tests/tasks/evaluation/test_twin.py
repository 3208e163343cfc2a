"""The comparison with the dense twin: paired, bounded on both sides, and said in words that follow the numbers."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation.budget import EXCESS, Allowance
from tasks.evaluation.gate import Evidence, decide
from tasks.evaluation.twin import BOUND_ALPHA, TwinComparison, compare, twin_of
from tasks.home.records import StageRecord
from tasks.home.trunk import FROM_SCRATCH
from tasks.night.conclusion import METRIC_KEYS, headline_figures
from tasks.recipes.stage_configs import PromoteConfig
from tasks.sources.resolve import Resolved
from tasks.stage import Night
from tests.model.tiny import tiny_config
from tests.tasks.rows import scored_documents, stage_record
from tests.tiny_recipe import tiny_recipe

CONFIG = PromoteConfig(resamples=200)
RNG = np.random.default_rng(0)
NUM_BYTES = np.ceil(RNG.lognormal(5, 0.8, 60))
NATS = NUM_BYTES * RNG.lognormal(0, 0.2, 60)


def stages(folder: Path, documents: pl.DataFrame, seconds: float) -> list[StageRecord]:
    """Two trainings of three steps each, so long in all, and their evaluation."""
    for stage in ("pretrain", "sft"):
        (folder / stage / "logs").mkdir(parents=True)
        points = [
            {"step": step, "train/tokens_seen": 60 * step, "train/tokens_per_s": 360 / seconds} for step in (1, 2, 3)
        ]
        (folder / stage / "logs" / "curve.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    (folder / "evaluate").mkdir()
    documents.write_parquet(folder / "evaluate" / "documents.parquet")
    bpb = documents["nats"].sum() / documents["num_bytes"].sum() / np.log(2)
    figures = {"pretrain": {"val/bpb": 9.0}, "sft": {"val/bpb": 8.0}, "evaluate": {"val/bpb": bpb}}
    return [stage_record(folder / stage, figures=of) for stage, of in figures.items()]


def compared(folder: Path, factor: float, noise: float = 0.02) -> TwinComparison:
    """A mixture that needs `factor` of the twin's nats, and twice its time."""
    shift = NUM_BYTES * np.random.default_rng(1).normal(0, noise, len(NUM_BYTES))
    mixture = stages(folder / "mixture", scored_documents(NATS * factor + shift, NUM_BYTES), 50.0)
    twin = stages(folder / "twin", scored_documents(NATS, NUM_BYTES), 25.0)
    return compare(tiny_config(), CONFIG, mixture, twin)


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(0.9, "the mixture is better"), (1.1, "the dense twin is better"), (1.0, "neither is shown to be better")],
)
def test_the_verdict_follows_the_bounds(tmp_path: Path, factor: float, verdict: str) -> None:
    twin = compared(tmp_path, factor)
    assert twin.verdict.startswith(f"{verdict} after the same tokens")
    assert twin.lower_bpb < twin.difference_bpb < twin.upper_bpb
    assert (twin.upper_bpb < 0, twin.lower_bpb > 0) == (factor < 1, factor > 1)
    for number in (twin.difference_bpb, twin.lower_bpb, twin.upper_bpb):
        assert f"{number:+.4f}" in twin.verdict
    assert "60 documents, 95% bounds" in twin.verdict


def test_the_upper_bound_is_that_of_a_promotion_and_the_sides_mirror(tmp_path: Path) -> None:
    twin = compared(tmp_path, 1.0)
    mixture, dense = (pl.read_parquet(tmp_path / who / "evaluate" / "documents.parquet") for who in ("mixture", "twin"))
    evidence = Evidence(Allowance(alpha=BOUND_ALPHA * EXCESS, spent_in_a_year=0.0, budget=1.0), {}, {})
    assert twin.upper_bpb == decide(mixture, dense, CONFIG, evidence).upper_bpb
    assert twin.lower_bpb == pytest.approx(-decide(dense, mixture, CONFIG, evidence).upper_bpb)


def test_the_price_is_the_time_of_the_steps(tmp_path: Path) -> None:
    twin = compared(tmp_path, 1.0)
    assert twin.mixture_seconds == pytest.approx(50 * 2 * 180 / 360)
    assert twin.price == "the mixture took 2.00 of the twin's training time: 50.0 s against 25.0 s"


def test_what_is_matched_is_said_with_the_router_s_share(tmp_path: Path) -> None:
    model = tiny_config()
    router = model.num_hidden_layers * model.num_experts * model.hidden_size
    dense = model.active_parameters - router
    assert (
        f"{model.active_parameters:,} active parameters against {dense:,} ({router / dense:+.2%}"
        in compared(tmp_path, 1.0).sizes
    )


@settings(max_examples=100)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(12, METRIC_KEYS))
def test_a_night_s_numbers_have_an_end_and_slices_go_first(sources: int, slices: int, room: int) -> None:
    figures = {"val/bpb": 1.0, **{f"val/bpb.s{n}": 2.0 for n in range(sources)}}
    figures |= {f"val/bpb.chat.d{n}": 3.0 for n in range(slices)}
    twin = TwinComparison(
        model=tiny_config(), mixture_bpb=1.0, twin_bpb=2.0, difference_bpb=-1.0, lower_bpb=-1.5, upper_bpb=-0.5,
        documents=3, mixture_seconds=2.0, twin_seconds=1.0,
    )  # fmt: skip
    kept = headline_figures([stage_record(Path("evaluate@1"), figures=figures)], twin, room)
    everything = figures | twin.as_metrics()
    assert len(kept) == min(room, len(everything))
    assert kept.items() <= everything.items()
    assert {"val/bpb", *twin.as_metrics()} <= kept.keys()
    if any(key.startswith("val/bpb.chat.") for key in kept):
        assert {f"val/bpb.s{n}" for n in range(sources)} <= kept.keys()


def test_the_decision_and_the_model_as_a_whole_stay_whatever_else_there_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nightschool")
    early = {"data/bad_share": 1.0, "data/fill.chat_train": 1.0, "train/loss": 1.0, "moe/dead_experts": 1.0}
    late = {"val/bpb.chat.en": 1.0, "val/bpb.talk": 1.0, "val/bpb.chat": 1.0, "eval/ece": 1.0, "promote/upper_bpb": 1.0}
    records = [stage_record(Path("inspect@1"), figures=early), stage_record(Path("register@1"), figures=late)]
    kept = headline_figures(records, None, 6)
    assert list(kept)[:3] == ["val/bpb.chat", "eval/ece", "promote/upper_bpb"]
    assert list(kept)[3:] == ["val/bpb.talk", "data/bad_share", "train/loss"]
    assert "metrics: moe/dead_experts, data/fill.chat_train, val/bpb.chat.en" in caplog.text
    assert len(headline_figures(records, None, 9)) == 9 and caplog.text.count("metrics: ") == 1


def test_what_the_twin_changes_of_the_recipe_is_said_in_full(tmp_path: Path) -> None:
    change = {"kind": "prune", "at_share": 0.5, "num_experts_before": 8}
    recipe = tiny_recipe(tmp_path / "raw").with_overrides({"twin": True, "pretrain.expert_changes": [change]})
    twin = twin_of(Night(recipe, "key", tmp_path, "", "run", 0, Resolved(())), FROM_SCRATCH)
    assert twin.changes == {"model.dense": "true", "pretrain.expert_changes": "[]"}
    assert twin.branch == "twin"
    assert twin.recipe == recipe.dense_twin()
