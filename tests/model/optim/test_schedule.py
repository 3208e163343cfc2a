from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config.optim import OptimConfig
from model.optim.schedule import learning_rate
from tests.reference.schedule import plain_schedule

PEAK = 0.1


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, Any]:
    warmup_share = draw(st.floats(0, 1))
    return {
        "warmup_share": warmup_share,
        "stable_share": draw(st.floats(0, 1)) * (1 - warmup_share),
        "decay": draw(st.sampled_from(["linear", "cosine"])),
        "final_lr_share": draw(st.floats(0, 1)),
    }


def rates_of(schedule: dict[str, Any], num_steps: int) -> list[float]:
    config = OptimConfig(peak_lr=PEAK, **schedule)
    return [learning_rate(config, step, num_steps) for step in range(num_steps)]


@given(schedules(), st.integers(1, 300))
def test_schedule_is_the_one_written_out_step_by_step(schedule: dict[str, Any], num_steps: int) -> None:
    expected = [PEAK * level for level in plain_schedule(num_steps, **schedule)]
    assert rates_of(schedule, num_steps) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(schedules(), st.integers(1, 300))
def test_every_step_moves_and_none_is_above_the_peak(schedule: dict[str, Any], num_steps: int) -> None:
    rates = rates_of(schedule, num_steps)
    assert all(0 < rate <= PEAK for rate in rates)
    assert max(rates) == PEAK


@given(schedules(), st.integers(1, 300))
def test_rates_rise_to_the_peak_and_never_again(schedule: dict[str, Any], num_steps: int) -> None:
    rates = rates_of(schedule, num_steps)
    warmup_steps = round(schedule["warmup_share"] * num_steps)
    assert rates[:warmup_steps] == sorted(set(rates[:warmup_steps]))
    assert rates[warmup_steps:] == sorted(rates[warmup_steps:], reverse=True)
    assert min(rates[warmup_steps:], default=PEAK) >= PEAK * schedule["final_lr_share"] * (1 - 1e-9)


@given(schedules(), st.integers(2, 300))
def test_neighbouring_steps_differ_by_no_more_than_one_step_of_the_slope(
    schedule: dict[str, Any], num_steps: int
) -> None:
    """No jumps where phases meet: half a turn of the cosine is pi/2 times as steep as a line."""
    rates = rates_of(schedule, num_steps)
    warmup_steps = round(schedule["warmup_share"] * num_steps)
    falling_steps = num_steps - round((schedule["warmup_share"] + schedule["stable_share"]) * num_steps)
    for step, (before, after) in enumerate(pairwise(rates), start=1):
        slope = 1 / warmup_steps if step < warmup_steps else math.pi / 2 / max(1, falling_steps)
        assert abs(after - before) <= PEAK * slope * (1 + 1e-9)


@given(schedules(), st.integers(1, 300))
def test_decay_arrives_one_step_after_the_last_and_stays(schedule: dict[str, Any], num_steps: int) -> None:
    config = OptimConfig(peak_lr=PEAK, **schedule)
    decays = round((schedule["warmup_share"] + schedule["stable_share"]) * num_steps) < num_steps
    if decays:
        for late in (num_steps, num_steps + 1, 2 * num_steps):
            assert learning_rate(config, late, num_steps) == pytest.approx(PEAK * schedule["final_lr_share"], abs=1e-15)


def test_default_warms_up_for_a_twentieth_and_falls_in_a_line_to_zero() -> None:
    rates = [learning_rate(OptimConfig(peak_lr=1.0), step, 100) for step in range(101)]
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert rates[5:] == pytest.approx([(100 - step) / 95 for step in range(5, 101)])


def test_warmup_stable_decay_passes_through_its_corners() -> None:
    schedule = {"warmup_share": 0.1, "stable_share": 0.5, "decay": "cosine", "final_lr_share": 0.2}
    config = OptimConfig(peak_lr=1.0, **schedule)
    rates = [learning_rate(config, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:61] == [1.0] * 52
    assert rates[80] == pytest.approx(0.6)
    assert rates[100] == pytest.approx(0.2)


@pytest.mark.parametrize("warmup_share", [0.0, 0.05, 0.3, 0.7])
def test_a_stable_share_of_all_the_rest_never_decays(warmup_share: float) -> None:
    rates = rates_of({"warmup_share": warmup_share, "stable_share": 1 - warmup_share}, 40)
    assert rates[round(40 * warmup_share) :] == [PEAK] * (40 - round(40 * warmup_share))


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_runs_of_a_few_steps_train_at_the_peak(num_steps: int) -> None:
    assert rates_of({}, num_steps)[0] == PEAK


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"stable_share": -0.1}, r"stable_share \(-0\.1\) must be at least 0"),
        ({"warmup_share": 0.5, "stable_share": 0.6}, r"warmup_share \(0\.5\) and stable_share \(0\.6\).*more than 1"),
    ],
)
def test_shares_that_do_not_fit_a_run_are_refused(schedule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimConfig(**schedule)
