"""Made-up runs that follow the law: how often the end lies in the interval, and what the parts do against slow ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.config.optim import OptimConfig
from model.dynamics.forecast import (
    FEWEST_PAST_RUNS,
    Forecaster,
    LawFits,
    Run,
    areas,
    design,
    extended,
    features_of,
    ridge,
)
from model.optim.schedule import learning_rate


def schedule(num_steps: int, peak_lr: float, stable_share: float) -> np.ndarray:
    optim = OptimConfig(peak_lr=peak_lr, stable_share=stable_share)
    return np.array([learning_rate(optim, step, num_steps) for step in range(num_steps)])


def made_up(seed: int, noise: float = 0.01) -> Run:
    """A run whose law depends on its size and rate, and on luck that no feature tells."""
    rng = np.random.default_rng([13, seed])
    parameters, steps = int(np.exp(rng.uniform(12, 15))), int(rng.integers(150, 600))
    peak, stable = float(np.exp(rng.uniform(-7, -5))), float(rng.choice([0.0, 0.25, 0.5, 0.75]))
    rates = schedule(steps, peak, stable)
    at = np.append(np.arange(10, steps, 10), steps)
    size = np.log(parameters) - 13.5
    law = np.array([1.5 - 0.1 * size + rng.normal(scale=0.03), 3 + 0.2 * size + rng.normal(scale=0.1), 0.1])
    bpb = design(rates, at, 0.3, 0.8) @ law + noise * rng.normal(size=len(at))
    return Run(features_of(parameters, 512 * steps, peak, stable), rates, at, bpb)


PAST = [made_up(seed) for seed in range(40)]
NEW = [made_up(seed) for seed in range(1_000, 1_100)]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5])
def test_the_end_of_eight_in_ten_new_runs_lies_in_the_interval(share: float) -> None:
    forecaster = Forecaster.fit(PAST, share)
    made = [forecaster.forecast(run) for run in NEW]
    inside = [each.p10 <= run.val_bpb[-1] <= each.p90 for each, run in zip(made, NEW, strict=True)]
    assert 0.65 <= np.mean(inside) <= 0.93
    assert all(each.p10 <= each.p50 <= each.p90 and each.past_runs == 40 for each in made)


def test_the_further_a_run_is_the_narrower_is_the_interval() -> None:
    widths = []
    for share in (0.0, 0.25, 0.5, 0.9):
        made = Forecaster.fit(PAST, share).forecast(NEW[0])
        widths.append(made.p90 - made.p10)
    assert widths == sorted(widths, reverse=True)


def test_validations_after_the_share_are_not_looked_at() -> None:
    run, forecaster = NEW[1], Forecaster.fit(PAST, 0.25)
    changed = run.val_bpb + 5.0 * (run.val_steps > 0.25 * run.num_steps)
    assert forecaster.forecast(Run(run.features, run.rates, run.val_steps, changed)) == forecaster.forecast(run)


def test_areas_are_the_double_sums_of_the_paper() -> None:
    rates, memory = schedule(60, 2e-3, 0.3), 0.8
    relative = rates / rates.max()
    forward, annealed = areas(rates, memory)
    for step in range(60):
        slow = sum(
            max(0.0, relative[k - 1] - relative[k]) * memory ** (i - k)
            for i in range(step + 1)
            for k in range(1, i + 1)
        )
        assert forward[step] == pytest.approx(relative[: step + 1].sum())
        assert annealed[step] == pytest.approx(slow)


def test_the_law_is_found_where_runs_follow_it_and_extends_them() -> None:
    clean = [made_up(seed, noise=1e-6) for seed in range(20)]
    fits = LawFits.of(clean)
    assert (fits.alpha, fits.memory) == (0.3, 0.8)
    run = clean[0]
    assert extended(fits.law(without=0), run.until(0.9)) == pytest.approx(run.val_bpb[-1], abs=2e-3)


def test_before_the_decay_what_it_will_gain_is_that_of_past_runs() -> None:
    """No point of the run changes by how much more the decay gains if it gained more in past runs."""
    law, more = LawFits.of(PAST).law(), 0.05
    generous = replace(law, mean=law.mean + np.array([0.0, 0.0, more]))
    rates, at = schedule(400, 1e-3, 0.75), np.arange(50, 301, 10)
    annealed = areas(rates, law.memory)[1]
    assert annealed[at].max() == 0
    for level in (2.0, 3.0):
        run = Run({}, rates, at, level + at**-0.3)
        assert extended(law, run) - extended(generous, run) == pytest.approx(more * annealed[-1])


def test_errors_of_the_ridge_are_those_of_fitting_again_without_each_row() -> None:
    rng = np.random.default_rng(3)
    columns = rng.normal(size=(15, 4))
    x, y = np.column_stack([columns, np.ones(15)]), columns @ [1.0, 0.0, -2.0, 0.5] + 0.3 * rng.normal(size=15) + 4
    weights, errors = ridge(x, y)
    free = np.diag([1.0] * 4 + [0.0])

    def refitted(rows: np.ndarray, penalty: float) -> np.ndarray:
        return np.asarray(np.linalg.solve(x[rows].T @ x[rows] + penalty * free, x[rows].T @ y[rows]))

    penalties = 10.0 ** np.arange(-2, 3.5, 0.5)
    chosen = next(p for p in penalties if np.allclose(refitted(np.arange(15), p), weights))
    slow = [y[n] - x[n] @ refitted(np.delete(np.arange(15), n), chosen) for n in range(15)]
    assert errors == pytest.approx(np.array(slow))


def test_past_runs_whose_first_validation_is_late_are_left_out() -> None:
    late = [Run(run.features, run.rates, run.val_steps[-3:], run.val_bpb[-3:]) for run in PAST[:5]]
    assert Forecaster.fit([*late, *PAST[5:]], 0.25).forecast(NEW[0]).past_runs == 35
    assert Forecaster.fit([*late, *PAST[5:]], 0.0).forecast(NEW[0]).past_runs == 40


def test_what_cannot_be_forecast_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=rf"at least {FEWEST_PAST_RUNS} past runs .* got 3 and 0\.25"):
        Forecaster.fit(PAST[:3], 0.25)
    with pytest.raises(ValueError, match="must end with a validation, its last is at"):
        Forecaster.fit([*PAST, PAST[0].until(0.5)], 0.25)
    run = NEW[0]
    with pytest.raises(ValueError, match=rf"validation by step {run.num_steps // 4} of {run.num_steps}, .* at None"):
        Forecaster.fit(PAST, 0.25).forecast(Run(run.features, run.rates, run.val_steps[:0], run.val_bpb[:0]))
    with pytest.raises(ValueError, match=r"without \['log_parameters'"):
        Forecaster.fit(PAST, 0.25).forecast(Run({}, run.rates, run.val_steps, run.val_bpb))
    with pytest.raises(ValueError, match="each of 2 validations, got 1"):
        Run({}, np.ones(5), np.array([1, 2]), np.ones(1))
    with pytest.raises(ValueError, match="in steps 1 to 5, got 3 to 6"):
        Run({}, np.ones(5), np.array([3, 6]), np.ones(2))
    with pytest.raises(ValueError, match=r"got 0, 5, 0\.1"):
        features_of(0, 5, 0.1, 0.5)
