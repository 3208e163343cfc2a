from __future__ import annotations

import numpy as np
import pytest

from tasks.training.watching.trend import trend_summary


def curve(steps: int, per_step: float, lr: float = 1e-3) -> list[dict[str, float]]:
    noise = np.random.default_rng(0).normal(0, 0.02, steps)
    first: dict[str, float] = {"step": 0, "val/loss": 9.0}
    return [first] + [
        {"step": step, "train/loss": 3 + per_step * step + noise[step - 1], "train/lr": lr}
        for step in range(1, steps + 1)
    ]


@pytest.mark.parametrize(
    ("per_step", "phase", "slope"), [(-1e-3, "falls fast", -1.0), (-5e-5, "falls slowly", -0.05), (1e-3, "rises", 1.0)]
)
def test_the_phase_and_its_slope_are_told_of_the_last_steps(per_step: float, phase: str, slope: float) -> None:
    [told] = trend_summary(curve(600, per_step))
    assert told.startswith(f"training loss {phase} since step ")
    assert told.endswith("nats per 1,000 steps over the last 300")
    figures = told.split(": ")[1].replace("(", "").replace(")", "").split()
    found, low, high = float(figures[0]), float(figures[1]), float(figures[3])
    assert low < slope < high
    assert found == pytest.approx(slope, abs=0.05)


def test_a_short_curve_has_no_trend() -> None:
    assert trend_summary(curve(12, -1e-3)) == trend_summary([]) == []
