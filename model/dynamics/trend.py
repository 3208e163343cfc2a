"""Where the training loss is heading: its slope with an honest interval, and the phase that training is in.

Everything is a function of the points recorded so far, so a run that was interrupted and resumed, or rolled back and
trained again, names the same phases as one that was not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import NormalDist

import numpy as np

WINDOW_STEPS = 300
"""Trailing steps that a slope is fitted to."""
LOOK_EVERY_STEPS = 20
"""Steps between looks: one costs some 0.2 ms, which is little beside twenty steps."""
FEWEST_POINTS = 30
"""Of a look: below this the autocorrelation of the noise is a guess."""
FAST_SHARE = 0.02
"""A fall is fast if it takes at least this share of the loss over a window's length."""
RISING_ERRORS = 4.0
"""Standard errors above 0 of a slope that rises. At two, a flat noisy curve rises once in dozens of looks."""
HIGHEST_RHO = 0.98
FEWEST_FITTED = 8
SPENT_SHARE = 0.25
"""Of the peak learning rate: below it a training has hardly anything left to learn with."""
BALANCE_TOLERANCE = 0.02
SETTLED_SHARE = 0.9
ENDS = np.linspace(0, np.pi / 2, 4_097)
ANGLES = (ENDS[1:] + ENDS[:-1]) / 2
"""Ends and middles of the cells of the grid of `t_quantile`."""


class Phase(Enum):
    """What the training loss does."""

    FAST = "falls fast"
    SLOW = "falls slowly"
    FLAT = "is flat"
    """No fall that stands out of the noise, which is not proof that there is none."""
    RISING = "rises"


@dataclass(frozen=True)
class Slope:
    """A straight line through recent losses. Nats stand for the unit of the losses, whatever it is."""

    nats_per_thousand_steps: float
    standard_error: float
    """Of the slope, in the same unit."""
    low: float
    high: float
    """Ends of the confidence interval of the slope."""
    mean_loss: float
    rho: float
    """Correlation of neighbouring residuals, corrected for bias, at least 0."""
    effective_points: float
    """How many independent points would tell as much."""
    first_step: int
    last_step: int

    @property
    def length_steps(self) -> int:
        return self.last_step - self.first_step + 1


@dataclass(frozen=True)
class Span:
    """A phase and the step since which it holds: that of the first of the two looks that agreed on it."""

    phase: Phase
    since_step: int


def slope_of(steps: Sequence[float], losses: Sequence[float], confidence: float = 0.95) -> Slope:
    """Least-squares slope of losses (n,) over ascending, evenly spaced steps (n,), allowing for autocorrelation.

    Noise is what a parabola leaves: the bend of a learning curve is none. It is taken as AR(1). With neighbours
    correlated by rho, n points tell as much as n (1 - rho) / (1 + rho) independent ones; these count in the variance of
    the noise and in the degrees of freedom of Student's t. Source: Santer et al. 2000, doi:10.1029/1999JD901105,
    equations 3 to 6. What k fitted terms leave understates rho by (k + (k + 2) rho) / n, which is added back. Source:
    Kendall 1954, doi:10.1093/biomet/41.3-4.403, for k = 1; each further slow term takes (1 + rho) / n more.
    Raises ValueError with fewer than FEWEST_FITTED points, different lengths or steps that do not ascend.
    """
    x, y = np.asarray(steps, dtype=float), np.asarray(losses, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < FEWEST_FITTED:
        raise ValueError(f"a slope needs at least {FEWEST_FITTED} steps and as many losses, got {x.shape}, {y.shape}")
    if (gap := float(np.diff(x).min())) <= 0:
        raise ValueError(f"steps must ascend, but one is {gap:+g} after the step before it")
    n, terms, centred = len(x), 3, x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    residuals = y - y.mean() - slope * centred
    bend = centred**2 - spread / n
    bend -= float(bend @ centred) / spread * centred
    residuals -= float(bend @ residuals) / float(bend @ bend) * bend
    squares = float(residuals @ residuals)
    raw = float(residuals[1:] @ residuals[:-1]) / squares if squares > 0 else 0.0
    # Negative rho would narrow the interval: on the safe side it counts as none.
    rho = min(HIGHEST_RHO, max(0.0, (n * raw + terms) / (n - terms - 2))) if squares > 0 else 0.0
    effective = n * (1 - rho) / (1 + rho)
    degrees = max(0.5, effective - terms)  # at half a degree of freedom the interval is as good as infinite
    error = float(np.sqrt(squares / degrees / spread))
    margin = t_quantile(0.5 + confidence / 2, degrees) * error
    return Slope(
        1e3 * slope, 1e3 * error, 1e3 * (slope - margin), 1e3 * (slope + margin), float(y.mean()), rho, effective,
        int(x[0]), int(x[-1]),
    )  # fmt: skip


def t_quantile(probability: float, degrees: float) -> float:
    """Quantile of Student's t distribution with `degrees` of freedom, a whole number or not; to 0.1 % from 1 degree on.

    With t = sqrt(degrees) tan(angle) the density is cos(angle) ** (degrees - 1), summed up here on a grid.
    Raises ValueError unless 0 < probability < 1 and degrees > 0.
    """
    if not 0 < probability < 1 or degrees <= 0:
        raise ValueError(f"needs 0 < probability < 1 and degrees > 0, got {probability} and {degrees}")
    if degrees > 1_000:
        return NormalDist().inv_cdf(probability)
    density = np.cos(ANGLES) ** (degrees - 1)
    summed = np.concatenate([[0.0], np.cumsum(density)])
    angle = float(np.interp(abs(2 * probability - 1) * summed[-1], summed, ENDS))
    return float(np.copysign(np.sqrt(degrees) * np.tan(angle), probability - 0.5))


def phase_of(slope: Slope, window_steps: int = WINDOW_STEPS) -> Phase:
    """What one slope alone says, its interval deciding on a fall and RISING_ERRORS standard errors on a rise."""
    if slope.nats_per_thousand_steps > RISING_ERRORS * slope.standard_error:
        return Phase.RISING
    if slope.high >= 0:
        return Phase.FLAT
    fall = -slope.nats_per_thousand_steps * window_steps / 1e3
    return Phase.FAST if fall >= FAST_SHARE * abs(slope.mean_loss) else Phase.SLOW


class PhaseWatch:
    """Follows a training loss step by step and looks at its trailing window at every `every_steps`-th step.

    `spans` depends on the points that stand alone: a step that is not above the last one replaces it and all after it,
    as after a roll back. Between looks a step costs an append.
    """

    def __init__(self, window_steps: int = WINDOW_STEPS, every_steps: int = LOOK_EVERY_STEPS) -> None:
        """Raises ValueError if the window cannot hold the points of a look."""
        if window_steps < FEWEST_POINTS or every_steps < 1:
            raise ValueError(
                f"needs window_steps >= {FEWEST_POINTS} and every_steps >= 1, got {window_steps} and {every_steps}"
            )
        self.window_steps, self.every_steps = window_steps, every_steps
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.looks: list[tuple[int, Phase]] = []
        """The step of each look and what it alone said."""

    def add(self, step: int, loss: float) -> None:
        """The loss of a step, nats per token; the look that is due with it. A loss that is not finite is left out."""
        if self.steps and step <= self.steps[-1]:
            self._drop_from(step)
        if not np.isfinite(loss):
            return
        self.steps.append(step)
        self.losses.append(loss)
        if step % self.every_steps == 0 and (slope := self.slope()):
            self.looks.append((step, phase_of(slope, self.window_steps)))

    def slope(self) -> Slope | None:
        """Of the trailing window; None while it holds too few points."""
        first = bisect_right(self.steps, self.steps[-1] - self.window_steps) if self.steps else 0
        if len(self.steps) - first < FEWEST_POINTS:
            return None
        return slope_of(self.steps[first:], self.losses[first:])

    @property
    def spans(self) -> tuple[Span, ...]:
        """The phases so far, oldest first. A phase begins when two looks one after the other agree on it."""
        spans: list[Span] = []
        for (step, phase), (_, confirmed) in zip(self.looks, self.looks[1:], strict=False):
            if phase is confirmed and (not spans or spans[-1].phase is not phase):
                spans.append(Span(phase, step))
        return tuple(spans)

    def _drop_from(self, step: int) -> None:
        keep = bisect_left(self.steps, step)
        del self.steps[keep:], self.losses[keep:]
        while self.looks and self.looks[-1][0] >= step:
            self.looks.pop()


def spans_of(
    steps: Sequence[int], losses: Sequence[float], window_steps: int = WINDOW_STEPS, every_steps: int = LOOK_EVERY_STEPS
) -> tuple[Span, ...]:
    """The phases of recorded losses (n,), nats per token, at ascending steps (n,); what a PhaseWatch fed with them
    says. Raises ValueError if there are not as many losses as steps."""
    if len(steps) != len(losses):
        raise ValueError(f"needs as many losses as steps, got {len(losses)} and {len(steps)}")
    watch = PhaseWatch(window_steps, every_steps)
    for step, loss in zip(steps, losses, strict=True):
        watch.add(int(step), float(loss))
    return watch.spans


def flat_by_schedule(slope: Slope, rates: Sequence[float]) -> bool:
    """Whether a loss that does not fall is flat because the learning rate has been taken away, not for want of ability.

    rates: learning rate of each step from step 1 on, up to the last step of `slope` at least. True where the slope is
    FLAT, the rate falls over its steps and has been below SPENT_SHARE of its highest on average: with steps that small
    no loss moves. Raises ValueError if rates are missing.
    """
    if len(rates) < slope.last_step:
        raise ValueError(f"needs the rates of {slope.last_step} steps, got {len(rates)}")
    used = np.asarray(rates[: slope.last_step], dtype=float)
    recent = used[slope.first_step - 1 :]
    decays = bool(recent[-1] < recent[0]) and bool((np.diff(recent) <= 0).all())
    flat = phase_of(slope, slope.length_steps) is Phase.FLAT
    return flat and decays and float(recent.mean()) < SPENT_SHARE * float(used.max())


def balance_at_optimum(balance_losses: Sequence[float], tolerance: float = BALANCE_TOLERANCE) -> bool:
    """Whether a balance loss (n,) that does not fall has nothing left to gain: its least value is 1.0.

    True if mean and SETTLED_SHARE of the values are within `tolerance` of 1.0. The loss is that of the Switch
    Transformer (arXiv 2101.03961, equation 4), experts times the sum of share and mean probability, per layer; it is 1
    where all experts get alike. Raises ValueError without values.
    """
    values = np.asarray(balance_losses, dtype=float)
    if not values.size:
        raise ValueError("needs at least 1 balance loss, got 0")
    within = np.abs(values - 1) <= tolerance
    return bool(abs(values.mean() - 1) <= tolerance and within.mean() >= SETTLED_SHARE)
