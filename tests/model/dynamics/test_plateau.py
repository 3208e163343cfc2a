"""Curves whose future is known: power laws that still fall, flat ones, ones that rise; paired errors done slowly."""

from __future__ import annotations

import numpy as np
import pytest

from model.dynamics.plateau import (
    AHEAD_SHARE,
    FEWEST_VALIDATIONS,
    PAIRED_ERRORS,
    Outlook,
    Verdict,
    outlook,
    paired_difference,
)

ROWS, BUDGET, EVERY = 64, 2_000, 50
CURVES = 300


def validations(level: np.ndarray, seed: int, noise: float = 0.1) -> np.ndarray:
    """Rows of very different difficulty, each around the level plus noise of its own at each validation, (V, R)."""
    rng = np.random.default_rng([11, seed])
    return level[:, None] + rng.normal(scale=1.0, size=ROWS) + rng.normal(scale=noise, size=(len(level), ROWS))


def judged(level: np.ndarray, seed: int, training_falls: bool = True) -> Outlook:
    steps = EVERY * np.arange(1, len(level) + 1)
    return outlook(steps.tolist(), validations(level, seed), BUDGET, training_falls)


@pytest.mark.parametrize("count", [12, 20, 30])
@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0])
def test_a_power_law_that_still_falls_visibly_is_hardly_ever_a_plateau(alpha: float, count: int) -> None:
    """The hardest that count as falling: what they will gain is just what a paired comparison can show."""
    steps = EVERY * np.arange(1.0, count + 1)
    gain = steps[-1] ** -alpha - (steps[-1] + AHEAD_SHARE * BUDGET) ** -alpha
    visible = PAIRED_ERRORS * 0.1 * np.sqrt(2 / ROWS)
    level = 2 + visible / gain * steps**-alpha
    plateaus = sum(judged(level, seed).verdict is Verdict.PLATEAU for seed in range(CURVES))
    assert plateaus <= 0.05 * CURVES


@pytest.mark.parametrize("count", [12, 20, 40])
def test_a_flat_curve_is_found_and_is_not_called_worse(count: int) -> None:
    verdicts = [judged(np.full(count, 2.0), seed).verdict for seed in range(CURVES)]
    assert verdicts.count(Verdict.PLATEAU) >= 0.9 * CURVES
    assert verdicts.count(Verdict.WORSE) <= 0.03 * CURVES


def test_a_curve_that_turns_is_worse_only_while_the_training_loss_falls() -> None:
    steps = EVERY * np.arange(1, 31)
    level = 2 + 0.5 * np.exp(-steps / 200) + 3e-4 * np.maximum(0, steps - 1_000)
    said = [judged(level, seed) for seed in range(40)]
    assert all(each.verdict is Verdict.WORSE and 600 <= each.best_step <= 1_250 for each in said)
    assert all(each.above_best == pytest.approx(0.15, abs=0.08) for each in said)
    assert all(judged(level, seed, training_falls=False).verdict is not Verdict.WORSE for seed in range(40))


def test_nothing_is_said_too_early() -> None:
    level = np.full(FEWEST_VALIDATIONS, 2.0)
    for count in range(1, FEWEST_VALIDATIONS):
        assert judged(level[:count], 1).verdict is Verdict.TOO_EARLY
    assert judged(level, 1).verdict is not Verdict.TOO_EARLY


def test_the_expected_gain_is_that_of_a_line_in_log_steps() -> None:
    steps = EVERY * np.arange(1, 21)
    said = outlook(steps.tolist(), np.tile((3 - 0.2 * np.log(steps))[:, None], (1, 4)), BUDGET, True)
    assert said.expected_gain == pytest.approx(0.2 * np.log(1_200 / 1_000))
    assert said.gain_low == pytest.approx(said.gain_high)
    assert said.verdict is Verdict.IMPROVING


def test_the_paired_error_is_the_spread_over_samples_of_rows() -> None:
    rng = np.random.default_rng(5)
    targets = rng.integers(20, 200, size=400).astype(float)
    earlier = targets * rng.normal(3, 1, size=400)
    later = earlier + targets * rng.normal(0.01, 0.1, size=400)
    mean, error = paired_difference(later, earlier, targets)
    samples = rng.integers(0, 400, size=(2_000, 400))
    slow = [(later[some] - earlier[some]).sum() / targets[some].sum() for some in samples]
    assert mean == pytest.approx((later - earlier).sum() / targets.sum())
    assert error == pytest.approx(np.std(slow), rel=0.1)


def test_rows_of_equal_length_need_no_targets() -> None:
    nats = validations(np.linspace(3, 2, 20), 3)
    steps = list(range(10, 210, 10))
    with_targets, without = outlook(steps, 7 * nats, 400, True, np.full(ROWS, 7.0)), outlook(steps, nats, 400, True)
    assert with_targets.verdict is without.verdict
    assert with_targets.gain_high == pytest.approx(without.gain_high)


def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, rows\) with at least 2 rows, got \(2, 4\)"):
        outlook([1, 2, 3], np.zeros((2, 4)), 10, True)
    with pytest.raises(ValueError, match=r"for 4 rows, got \(3,\)"):
        outlook([1, 2], np.zeros((2, 4)), 10, True, np.ones(3))
    with pytest.raises(ValueError, match="first is 2 and the least gap -1"):
        outlook([2, 1], np.zeros((2, 4)), 10, True)
    with pytest.raises(ValueError, match="1 of 8 are not"):
        outlook([1, 2], np.array([[1.0] * 4, [1.0, 1.0, np.inf, 1.0]]), 10, True)
