"""The interval of a slope holds the true one as often as it says; phases depend on the recorded points alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from model.dynamics.trend import (
    Phase,
    PhaseWatch,
    Span,
    balance_at_optimum,
    flat_by_schedule,
    phase_of,
    slope_of,
    spans_of,
    t_quantile,
)

STEPS = np.arange(1, 301)


def noise(rng: np.random.Generator, count: int, rho: float, deviation: float = 1.0) -> np.ndarray:
    """Stationary AR(1) noise, one step after the other."""
    values = [rng.normal()]
    for _ in range(count - 1):
        values.append(rho * values[-1] + np.sqrt(1 - rho**2) * rng.normal())
    return deviation * np.array(values)


@pytest.mark.parametrize("rho", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_the_interval_holds_the_true_slope_as_often_as_it_says(rho: float) -> None:
    covered = 0
    for seed in range(400):
        curve = 3 - 0.5e-3 * STEPS + noise(np.random.default_rng([7, seed]), 300, rho, 0.1)
        slope = slope_of(STEPS, curve)
        covered += slope.low <= -0.5 <= slope.high
    assert 0.92 <= covered / 400 <= 0.98


def test_the_slope_is_that_of_least_squares_and_without_correlation_so_is_its_error() -> None:
    curve = 4 - 1e-3 * STEPS + np.random.default_rng(3).normal(size=300)
    slope, reference = slope_of(STEPS, curve), stats.linregress(STEPS, curve)
    assert slope.nats_per_thousand_steps == pytest.approx(1e3 * reference.slope)
    assert slope.rho < 0.15
    widened = (slope.effective_points - 3) / 297
    assert slope.standard_error * np.sqrt(widened) == pytest.approx(1e3 * reference.stderr, rel=1e-2)


def test_a_bend_is_no_noise() -> None:
    bent = 3 + 4 * np.exp(-STEPS / 150) + 0.05 * np.random.default_rng(8).normal(size=300)
    slope = slope_of(STEPS, bent)
    assert slope.high < 0
    assert slope.standard_error < 0.1


@pytest.mark.parametrize("degrees", [1, 3.5, 31, 298, 5_000])
def test_quantiles_are_those_of_student(degrees: float) -> None:
    for probability in (0.025, 0.2, 0.5, 0.9, 0.995):
        assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=2e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("slope", "phase"), [(-2.0, Phase.FAST), (-0.1, Phase.SLOW), (0.0, Phase.FLAT), (2.0, Phase.RISING)]
)
def test_a_phase_is_named_by_its_slope(slope: float, phase: Phase) -> None:
    curve = 3 + slope * STEPS / 1e3 + 0.01 * np.random.default_rng(1).normal(size=300)
    assert phase_of(slope_of(STEPS, curve)) is phase


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_a_flat_noisy_curve_hardly_ever_rises(rho: float) -> None:
    """60 curves of 1,500 steps are 4,300 looks."""
    rises = 0
    for seed in range(60):
        curve = 3 + noise(np.random.default_rng([5, seed]), 1_500, rho, 0.1)
        rises += any(span.phase is Phase.RISING for span in spans_of(range(1, 1_501), curve.tolist()))
    assert rises <= 1


def curve_of_three_parts() -> np.ndarray:
    steps = np.arange(1, 2_001)
    level = 3 + 3 * np.exp(-steps / 100) + 0.6e-3 * np.maximum(0, steps - 1_200)
    return level + 0.02 * np.random.default_rng(2).normal(size=2_000)


def test_phases_follow_a_fall_a_level_and_a_rise() -> None:
    spans = spans_of(range(1, 2_001), curve_of_three_parts().tolist())
    assert [span.phase for span in spans if span.phase is not Phase.SLOW] == [Phase.FAST, Phase.FLAT, Phase.RISING]
    assert 500 < next(span.since_step for span in spans if span.phase is Phase.FLAT) < 900
    assert 1_200 < spans[-1].since_step < 1_400


def test_a_run_that_was_rolled_back_names_the_same_phases_as_one_that_was_not() -> None:
    curve = curve_of_three_parts().tolist()
    watch = PhaseWatch()
    for step in range(1, 1_510):
        watch.add(step, curve[step - 1] if step <= 1_300 else 9.0)
    for step in range(1_301, 2_001):
        watch.add(step, curve[step - 1])
    assert watch.spans == spans_of(range(1, 2_001), curve)


def test_one_look_alone_names_nothing_and_a_loss_that_is_not_finite_is_left_out() -> None:
    watch = PhaseWatch()
    falling = (5 - 0.01 * np.arange(1, 61)).tolist()
    for step, loss in enumerate(falling[:59], start=1):
        watch.add(step, loss if step != 20 else float("nan"))
    assert watch.looks == [(40, Phase.FAST)]
    assert watch.spans == ()
    watch.add(60, falling[59])
    assert watch.spans == (Span(Phase.FAST, 40),)


def test_a_flat_tail_is_laid_to_the_schedule_only_where_the_rate_is_spent() -> None:
    rng = np.random.default_rng(4)
    slope = slope_of(np.arange(701, 1_001), 3 + 0.1 * rng.normal(size=300))
    decaying, constant = np.linspace(1, 0, 1_000), np.ones(1_000)
    assert flat_by_schedule(slope, decaying.tolist())
    assert not flat_by_schedule(slope, constant.tolist())
    falling = slope_of(np.arange(701, 1_001), 3 - 1e-3 * STEPS + 0.01 * rng.normal(size=300))
    assert not flat_by_schedule(falling, decaying.tolist())
    with pytest.raises(ValueError, match="rates of 1000 steps, got 900"):
        flat_by_schedule(slope, decaying[:900].tolist())


def test_a_balance_loss_near_one_is_at_its_optimum() -> None:
    values = 1.005 + 0.005 * np.random.default_rng(6).normal(size=200)
    assert balance_at_optimum(values.tolist())
    assert not balance_at_optimum((values + 0.05).tolist())
    assert not balance_at_optimum([0.9, 1.1] * 100)


def test_what_cannot_be_fitted_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"at least 8 steps and as many losses, got \(4,\), \(3,\)"):
        slope_of([1, 2, 3, 4], [1, 2, 3])
    with pytest.raises(ValueError, match="-1 after the step before"):
        slope_of([1, 2, 3, 2, 4, 5, 6, 7], np.ones(8))
    with pytest.raises(ValueError, match="got 1 and 2"):
        spans_of([1, 2], [1.0])
    with pytest.raises(ValueError, match="got 10 and 20"):
        PhaseWatch(window_steps=10)
