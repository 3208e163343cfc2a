"""The validation loss that a training will end with, before it starts or from its early curve, with an interval.

Two steps. A law of the loss against learning-rate area extends the early curve to the last step; what it cannot know
yet it takes from past runs. A ridge regression over past runs then corrects that by size, tokens, peak rate and
schedule, and its errors on runs that it has not seen give the interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_PAST_RUNS = 8
"""Below this the outermost of their errors is no bound of eight tenths."""
QUANTILES = (0.1, 0.5, 0.9)
ALPHAS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
MEMORIES = (0.0, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Per step; 0.99 to 0.999 in the paper, whose runs are far longer. At 0 a fall of the rate pays at once."""
PENALTIES = tuple(10.0**n for n in np.arange(-2, 3.5, 0.5))
"""Of the ridge regression, in squared standard deviations of a column."""
CAUTION = 10.0
"""How many points in a row miss the law together."""
EARLIEST_SHARE = 0.04
"""Of all steps: earlier points are from the warm-up and before the law holds."""


@dataclass(frozen=True)
class Run:
    """A training: a past one as a whole, or one under way with the validations so far."""

    features: Mapping[str, float]
    """What is known before the start, on scales on which the loss is nearly linear: logarithms of sizes and rates."""
    rates: np.ndarray
    """(steps,) learning rate of every step of the schedule, those to come included."""
    val_steps: np.ndarray
    """(V,) steps done before each validation, ascending; of a past run the last is its last step."""
    val_bpb: np.ndarray
    """(V,) bits per byte, the same rows each time."""

    def __post_init__(self) -> None:
        if len(self.val_steps) != len(self.val_bpb):
            raise ValueError(f"needs a score for each of {len(self.val_steps)} validations, got {len(self.val_bpb)}")
        if len(self.val_steps) and (self.val_steps[-1] > len(self.rates) or self.val_steps[0] < 1):
            raise ValueError(
                f"validations must lie in steps 1 to {len(self.rates)}, got {self.val_steps[0]} to {self.val_steps[-1]}"
            )

    @property
    def num_steps(self) -> int:
        return len(self.rates)

    def until(self, share: float) -> Run:
        """The run when this share of its steps is done."""
        there = np.asarray(self.val_steps) <= share * self.num_steps + 1e-9
        return Run(self.features, self.rates, np.asarray(self.val_steps)[there], np.asarray(self.val_bpb)[there])


@dataclass(frozen=True)
class Forecast:
    """Bits per byte at the last step."""

    p10: float
    p50: float
    p90: float
    past_runs: int
    share: float
    """Of the steps, done when it was made."""


@dataclass(frozen=True)
class Law:
    """L = L0 + A S1^-alpha - C S2, and how L0, A and C are spread over past runs."""

    alpha: float
    memory: float
    mean: np.ndarray
    """(3,) of L0, A, C."""
    covariance: np.ndarray
    """(3, 3)"""
    noise: float
    """Bits per byte by which points miss the law fitted to them."""


def areas(rates: np.ndarray, memory: float) -> tuple[np.ndarray, np.ndarray]:
    """S1 and S2 after each step, (steps,) each, in steps at the peak rate.

    S1 sums the rate. S2 sums a momentum that each fall of the rate adds to and each step multiplies by `memory`: the
    gain of a decay comes some steps after it. Source: arXiv 2408.11029, section 3; a rise, as in the warm-up, counts
    as no fall there either.
    """
    relative = np.asarray(rates, dtype=float) / np.max(rates)
    falls = np.maximum(0.0, -np.diff(relative, prepend=relative[0]))
    momentum, momenta = 0.0, np.zeros_like(falls)
    for step, fall in enumerate(falls):
        momentum = memory * momentum + fall
        momenta[step] = momentum
    return np.cumsum(relative), np.cumsum(momenta)


def design(rates: np.ndarray, steps: np.ndarray, alpha: float, memory: float) -> np.ndarray:
    """What L0, A and C are multiplied with after the given steps, (len(steps), 3)."""
    return columns_at(areas(rates, memory), steps, alpha)


def columns_at(both_areas: tuple[np.ndarray, np.ndarray], steps: np.ndarray, alpha: float) -> np.ndarray:
    """The same from S1 and S2 of all steps."""
    forward, annealed = both_areas
    at = np.asarray(steps, dtype=int) - 1
    return np.stack([np.ones(len(at)), forward[at] ** -alpha, -annealed[at]], axis=1)


def law_points(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Steps and scores that the law is fitted to."""
    steps, scores = np.asarray(run.val_steps), np.asarray(run.val_bpb, dtype=float)
    late = steps > EARLIEST_SHARE * run.num_steps
    return steps[late], scores[late]


@dataclass(frozen=True)
class LawFits:
    """The law fitted to each whole past run, with one alpha and memory for all: the best of a grid."""

    alpha: float
    memory: float
    fits: np.ndarray
    """(past runs, 3) of L0, A, C."""
    noise: float

    @classmethod
    def of(cls, past: Sequence[Run]) -> LawFits:
        best: LawFits | None = None
        curves = [law_points(run) for run in past]
        for memory in MEMORIES:
            swept = [areas(run.rates, memory) for run in past]
            for alpha in ALPHAS:
                fits, squares, points = [], 0.0, 0
                for both_areas, (steps, scores) in zip(swept, curves, strict=True):
                    x = columns_at(both_areas, steps, alpha)
                    fits.append(np.linalg.lstsq(x, scores, rcond=None)[0])
                    squares += float(((scores - x @ fits[-1]) ** 2).sum())
                    points += max(1, len(scores) - 3)
                tried = cls(alpha, memory, np.array(fits), float(np.sqrt(squares / points)))
                best = tried if best is None or tried.noise < best.noise else best
        assert best
        return best

    def law(self, without: int | None = None) -> Law:
        """With the spread over all past runs, or over all but one."""
        fits = self.fits if without is None else np.delete(self.fits, without, axis=0)
        return Law(self.alpha, self.memory, fits.mean(axis=0), np.cov(fits, rowvar=False), max(self.noise, 1e-6))


def extended(law: Law, run: Run) -> float:
    """Bits per byte at a run's last step, from its points so far and what past runs say of L0, A and C.

    The posterior mean of a linear model whose prior is the spread over past runs. Before the decay begins S2 is 0, so
    nothing in the run tells C, and it is that of past runs; L0 and A are told apart only once S1 has grown several
    times, and until then the prior holds them. Points miss the law by stretches, not each on its own, so each counts
    CAUTION times less than its noise says.
    """
    steps, scores = law_points(run)
    x = design(run.rates, steps, law.alpha, law.memory)
    precision = np.linalg.pinv(law.covariance, hermitian=True)
    weight = 1 / (CAUTION * law.noise**2)
    told = weight * x.T @ (scores - x @ law.mean)
    posterior = law.mean + np.linalg.solve(precision + weight * x.T @ x, told)
    return float((design(run.rates, np.array([run.num_steps]), law.alpha, law.memory) @ posterior)[0])


@dataclass(frozen=True)
class Forecaster:
    """What past runs teach about forecasts at one share of the steps."""

    share: float
    law: Law
    names: tuple[str, ...]
    """Of the features, in order."""
    centre: np.ndarray
    scale: np.ndarray
    """(F + 2,) of the regression's columns."""
    weights: np.ndarray
    """(F + 3,) with the intercept last."""
    errors: np.ndarray
    """(past runs,) truth minus forecast of each past run by the regression without it, ascending."""

    @classmethod
    def fit(cls, past: Sequence[Run], share: float) -> Forecaster:
        """From whole past runs, each cut off after `share` of its steps; 0 is before the start.

        The law's spread and the regression are fitted without the run whose error is noted; alpha and memory, two
        numbers of a grid, are those of all. Past runs whose first validation comes later are left out. Raises
        ValueError if fewer than FEWEST_PAST_RUNS are left, or if one does not end with a validation or lacks a feature.
        """
        past = [run for run in past if share == 0 or len(run.until(share).val_steps)]
        names = tuple(past[0].features) if past else ()
        check_past(past, share, names)
        fits = LawFits.of(past)
        cut = [run.until(share) for run in past]
        raw = [extended(fits.law(without=number), run) for number, run in enumerate(cut)]
        columns = np.array([columns_of(run, value, names) for run, value in zip(cut, raw, strict=True)])
        missed = np.array([run.val_bpb[-1] for run in past]) - raw
        centre, scale = columns.mean(axis=0), np.maximum(columns.std(axis=0), 1e-9)
        x = np.column_stack([(columns - centre) / scale, np.ones(len(past))])
        weights, errors = ridge(x, missed)
        return cls(share, fits.law(), names, centre, scale, weights, np.sort(errors))

    def forecast(self, run: Run) -> Forecast:
        """Of a run of which `share` of the steps is done; later validations are left out.

        The interval reaches from the tenth to the ninetieth hundredth of the errors noted, counted as among one more
        than there are: so it holds the end of eight of ten runs that are like the past ones. Source: Barber et al.
        2021, arXiv 1905.02928, the jackknife. Raises ValueError if the run lacks a feature or, at a share above 0, a
        validation.
        """
        first = run.val_steps[0] if len(run.val_steps) else None
        run = run.until(self.share)
        if self.share and not len(run.val_steps):
            due = int(self.share * run.num_steps)
            raise ValueError(f"needs a validation by step {due} of {run.num_steps}, the first is at {first}")
        if missing := [name for name in self.names if name not in run.features]:
            raise ValueError(f"needs the features {list(self.names)}, got {list(run.features)} without {missing}")
        value = extended(self.law, run)
        column = (columns_of(run, value, self.names) - self.centre) / self.scale
        value += float(np.append(column, 1.0) @ self.weights)
        count = len(self.errors)
        ranks = np.clip(np.array(QUANTILES) * (count + 1) - 1, 0, count - 1)
        p10, p50, p90 = value + np.interp(ranks, np.arange(count), self.errors)
        return Forecast(float(p10), float(p50), float(p90), count, self.share)


def features_of(active_parameters: int, num_tokens: int, peak_lr: float, stable_share: float) -> dict[str, float]:
    """The features of a run from its configuration: what a token passes, slots to train on, rate and schedule.

    Enough where text, batch and tokenizer are the same; runs that differ in these are no past of each other. Raises
    ValueError unless the first three are above 0.
    """
    if min(active_parameters, num_tokens, peak_lr) <= 0:
        raise ValueError(
            f"parameters, tokens and rate must be above 0, got {active_parameters}, {num_tokens}, {peak_lr}"
        )
    return {
        "log_parameters": float(np.log(active_parameters)), "log_tokens": float(np.log(num_tokens)),
        "log_peak_lr": float(np.log(peak_lr)), "stable_share": stable_share,
    }  # fmt: skip


def check_past(past: Sequence[Run], share: float, names: Sequence[str]) -> None:
    """ValueError unless a forecaster can be fitted to these runs."""
    if len(past) < FEWEST_PAST_RUNS or not 0 <= share < 1:
        raise ValueError(
            f"needs at least {FEWEST_PAST_RUNS} past runs and a share from 0 below 1, got {len(past)} and {share}"
        )
    for run in past:
        if (last := run.val_steps[-1] if len(run.val_steps) else 0) != run.num_steps:
            raise ValueError(f"a past run of {run.num_steps} steps must end with a validation, its last is at {last}")
        if set(run.features) != set(names):
            raise ValueError(f"past runs must have the same features, got {sorted(names)} and {sorted(run.features)}")


def columns_of(run: Run, extension: float, names: Sequence[str]) -> np.ndarray:
    """What the law's error is regressed on, (F + 2,): features, the law's forecast, and the last score of the run.

    Before the first validation that score is the law's forecast, which tells nothing more.
    """
    last = float(run.val_bpb[-1]) if len(run.val_bpb) else extension
    return np.array([*(run.features[name] for name in names), extension, last])


def ridge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights for columns x (n, F), the last an intercept without penalty, and the errors (n,) of leaving one out.

    The penalty is the one of PENALTIES with the least squared errors of that kind, which the hat matrix gives without
    refitting (Allen 1974, PRESS).
    """
    free = np.ones(x.shape[1])
    free[-1] = 0.0
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for penalty in PENALTIES:
        solve = np.linalg.solve(x.T @ x + penalty * np.diag(free), x.T)
        weights = solve @ y
        errors = (y - x @ weights) / (1 - np.einsum("nf,fn->n", x, solve))
        squares = float(errors @ errors)
        if best is None or squares < best[0]:
            best = squares, weights, errors
    assert best
    return best[1], best[2]
