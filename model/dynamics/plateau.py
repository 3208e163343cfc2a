"""Whether validation still improves: the gain to expect against the noise of the comparison that would show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from model.dynamics.trend import t_quantile

FEWEST_VALIDATIONS = 8
AHEAD_SHARE = 0.1
"""Of the budget, over which the gain is expected."""
RECENT_SHARE = 0.5
"""Of the steps so far: the stretch that the trend is taken from."""
PAIRED_ERRORS = 2.0
"""Standard errors of a paired difference that count as a difference."""
CONFIDENCE = 0.95
"""One-sided, of the bounds of the gain."""


class Verdict(Enum):
    TOO_EARLY = "too few validations to say"
    IMPROVING = "improves"
    PLATEAU = "no gain to expect that a validation could show"
    WORSE = "gets worse"


@dataclass(frozen=True)
class Outlook:
    """What validations say about going on; gains and errors in nats per target, positive where the loss falls."""

    verdict: Verdict
    ahead_steps: float
    expected_gain: float
    """Over the next `ahead_steps` steps; NaN, as its bounds, where it is too early."""
    gain_low: float
    gain_high: float
    paired_error: float
    """Standard error over rows of the difference between two validations that differ by noise alone."""
    best_step: int
    above_best: float
    """How far the last validation is above the best."""
    above_best_error: float
    """The paired standard error of that."""


def outlook(
    steps: Sequence[int], nats: np.ndarray, budget_steps: int, training_falls: bool, targets: np.ndarray | None = None
) -> Outlook:
    """The verdict after the last of V validations of the same R rows, made at ascending `steps` (V,).

    nats: (V, R), summed over the targets of a row; `targets` (R,) is their number, 1 each if it is not given, and then
    nats are the mean of each row.
    training_falls: whether the training loss does, for instance `slope_of(...).high < 0`.

    Improving, unless the upper bound of the expected gain is below PAIRED_ERRORS paired standard errors: then it is a
    plateau. So a curve that still falls visibly is called a plateau in one of twenty cases at the most, as long as its
    noise is independent from one validation to the next. Worse, if the last two validations are each above the best of
    those before them by more than PAIRED_ERRORS of their paired standard errors and the upper bound of the gain is
    below 0, while the training loss falls: the best of many is low by luck, and one validation alone, or even two, is
    above it by as much where nothing changes. While the learning rate decays, gains come from the decay; and a
    curve that is flat under a rate near 0 is a plateau of the schedule, see `model.dynamics.trend.flat_by_schedule`.
    Raises ValueError where shapes do not agree, steps do not ascend or a score is not finite.
    """
    numbers, scores, weights = checked(steps, nats, targets)
    means = scores.sum(axis=1) / weights.sum()
    ahead = AHEAD_SHARE * budget_steps
    last = len(means) - 1
    # The last two are compared with what came before them, so that none of them is its own best.
    best = int(np.argmin(means[:-2])) if last >= 2 else int(np.argmin(means))
    above, above_error = paired_difference(scores[last], scores[best], weights)
    if len(means) < FEWEST_VALIDATIONS:
        nothing = float("nan")
        return Outlook(
            Verdict.TOO_EARLY, ahead, nothing, nothing, nothing, nothing, int(numbers[best]), above, above_error
        )
    recent = np.flatnonzero(numbers >= (1 - RECENT_SHARE) * numbers[-1])
    recent = recent if len(recent) >= FEWEST_VALIDATIONS - 2 else np.arange(len(means))[2 - FEWEST_VALIDATIONS :]
    pairs = [paired_difference(scores[n], scores[n - 1], weights)[1] for n in recent if n]
    noise = float(np.sqrt(np.mean(np.square(pairs))))
    gain, error = expected_gain(numbers[recent], means[recent], ahead, noise / np.sqrt(2))
    margin = t_quantile(CONFIDENCE, len(recent) - 2) * error
    before, before_error = paired_difference(scores[last - 1], scores[best], weights)
    verdict = Verdict.PLATEAU if gain + margin < PAIRED_ERRORS * noise else Verdict.IMPROVING
    outstanding = above > PAIRED_ERRORS * above_error and before > PAIRED_ERRORS * before_error
    if training_falls and outstanding and gain + margin < 0:
        verdict = Verdict.WORSE
    return Outlook(verdict, ahead, gain, gain - margin, gain + margin, noise, int(numbers[best]), above, above_error)


def checked(
    steps: Sequence[int], nats: np.ndarray, targets: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps (V,), nats (V, R) and targets (R,) as float64; ValueError where they do not fit each other."""
    numbers, scores = np.asarray(steps, dtype=float), np.asarray(nats, dtype=float)
    if scores.ndim != 2 or len(scores) != len(numbers) or scores.shape[0] < 1 or scores.shape[1] < 2:
        raise ValueError(f"needs nats of shape ({len(numbers)}, rows) with at least 2 rows, got {scores.shape}")
    weights = np.ones(scores.shape[1]) if targets is None else np.asarray(targets, dtype=float)
    if weights.shape != scores.shape[1:] or weights.min() <= 0:
        raise ValueError(f"needs targets above 0 for {scores.shape[1]} rows, got {weights.shape}, {weights.min()} up")
    if (gap := float(np.diff(numbers, prepend=0.0).min())) <= 0:
        raise ValueError(f"steps must ascend from 1, but the first is {numbers[0]:g} and the least gap {gap:+g}")
    if not np.isfinite(scores).all():
        raise ValueError(f"needs finite nats, but {int((~np.isfinite(scores)).sum())} of {scores.size} are not")
    return numbers, scores, weights


def paired_difference(later: np.ndarray, earlier: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Later minus earlier in nats per target, and its standard error over rows; all (R,).

    The ratio of sums and the error of its linearisation, rows as a sample of rows. Source: Cochran 1977, Sampling
    Techniques, section 6.4; paired as arXiv 2411.00640, section 4.2.
    """
    difference, rows = later - earlier, len(targets)
    mean = float(difference.sum() / targets.sum())
    left = difference - mean * targets
    return mean, float(np.sqrt(rows / (rows - 1) * (left @ left)) / targets.sum())


def expected_gain(steps: np.ndarray, means: np.ndarray, ahead_steps: float, least_noise: float) -> tuple[float, float]:
    """Nats by which the loss will fall over `ahead_steps` more steps, and the standard error of that; arrays are (W,).

    From a line in the logarithm of steps, the later a validation the heavier: a power law of steps is nearly straight
    there and bends upwards, so the line sees rather too much gain than too little. The noise of one validation is what
    the line leaves, at least `least_noise`.
    """
    x = np.log(steps)
    weights = np.arange(1, len(x) + 1) / len(x)
    centred = x - weights @ x / weights.sum()
    spread = float(weights @ centred**2)
    slope = float((weights * centred) @ means) / spread
    left = means - means @ weights / weights.sum() - slope * centred
    # The line has two terms, so W - 2 of W residuals are free. Their weights have a mean near 1/2.
    variance = max(least_noise**2, float(weights @ left**2) / float(weights.mean()) / (len(x) - 2))
    ahead = float(np.log1p(ahead_steps / steps[-1]))
    return -slope * ahead, float(np.sqrt(variance * ((weights * centred) ** 2).sum())) / spread * ahead
