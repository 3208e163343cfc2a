"""Meters in constant time are the plain figures over the whole history, in one process or over several."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.dynamics.smoothing import EMA_WEIGHT, smoothed
from model.training.trainer import StepMetrics
from tasks.training.meters import CLIPPED_STEPS, LOAD_WEIGHT, StageMeters
from tests.reference.meters import clipped_share, expert_load, loss_average

STEP = StepMetrics(
    number=1, num_steps=300, loss=1.0, balance_loss=1.0, z_loss=0.0, lr=1e-3, grad_norm=1.0, clipped=False, tokens=64,
    supervised_tokens=64, tokens_seen=64, seconds=1.0, data_seconds=0.0, counts_LE=np.ones((2, 4)),
    nats_BT=np.ones((4, 16)), rows_B=np.arange(4),
)  # fmt: skip
LOSSES = st.lists(st.floats(1e-3, 20), min_size=1, max_size=250)


def steps_of(losses: list[float], seed: int) -> list[StepMetrics]:
    """Steps with these losses, some clipped, whose experts become five after the first 70."""
    random = np.random.default_rng(seed)
    return [
        replace(
            STEP, number=number, loss=loss, clipped=bool(random.random() < 0.3),
            counts_LE=random.integers(0, 100, (2, 4 if number <= 70 else 5)),
        )
        for number, loss in enumerate(losses, start=1)
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(losses=LOSSES, seed=st.integers(0, 1_000))
def test_each_step_is_the_figure_over_all_steps_so_far(losses: list[float], seed: int) -> None:
    meters, steps = StageMeters([]), steps_of(losses, seed)
    logged = [meters.update(step) for step in steps]
    averages = [metrics["train/loss_ema"] for metrics in logged]
    assert averages == smoothed(losses, EMA_WEIGHT).tolist()
    clipped = [step.clipped for step in steps]
    for number in {*range(1, len(steps) + 1, 23), CLIPPED_STEPS, len(steps)} & {*range(len(steps) + 1)}:
        assert averages[number - 1] == pytest.approx(loss_average(losses[:number], EMA_WEIGHT), rel=1e-12)
        assert logged[number - 1]["train/clipped_share"] == clipped_share(clipped[:number], CLIPPED_STEPS)
    expected_LE = expert_load([step.counts_LE for step in steps], LOAD_WEIGHT)
    assert np.allclose(meters.load.counts_LE, expected_LE, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(losses=LOSSES, seed=st.integers(0, 1_000), share=st.floats(0, 1))
def test_a_resumed_stage_logs_the_same_numbers(losses: list[float], seed: int, share: float) -> None:
    whole, steps, points = StageMeters([]), steps_of(losses, seed), [{"step": 0, "val/bpb": 4.0}]
    logged = []
    for step in steps:
        logged.append(whole.update(step))
        points.append({"step": step.number, **step.as_metrics(), **logged[-1]})
    done = round(share * len(steps))
    resumed = StageMeters(json.loads(json.dumps(points[: done + 1])))
    assert [resumed.update(step) for step in steps[done:]] == logged[done:]


@settings(max_examples=60, deadline=None)
@given(losses=st.lists(st.floats(0, 20), min_size=101, max_size=250))
def test_what_lies_a_hundred_steps_back_hardly_counts(losses: list[float]) -> None:
    """Against the average of the last hundred losses alone, at most 0.95^100 of the losses' range."""
    full, last = loss_average(losses, EMA_WEIGHT), loss_average(losses[-100:], EMA_WEIGHT)
    assert abs(full - last) <= EMA_WEIGHT**100 * (max(losses) - min(losses)) + 1e-9
