"""Smoothing is a weighted average of the past."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.dynamics.smoothing import smoothed


def slowly_smoothed(values: list[float], weight: float) -> list[float]:
    """The average of everything so far, weighted by weight ** age."""
    out = []
    for n in range(1, len(values) + 1):
        weights = [weight**age for age in reversed(range(n))]
        out.append(sum(w * v for w, v in zip(weights, values[:n], strict=True)) / sum(weights))
    return out


@settings(max_examples=60)
@given(st.lists(st.floats(-100, 100), max_size=30), st.floats(0, 0.99))
def test_smoothing_is_the_weighted_average_of_the_past(values: list[float], weight: float) -> None:
    assert smoothed(values, weight) == pytest.approx(np.array(slowly_smoothed(values, weight)), rel=1e-9, abs=1e-9)


def test_smoothing_starts_at_the_first_value_and_leaves_a_constant_alone() -> None:
    assert smoothed([3.0] * 40).tolist() == pytest.approx([3.0] * 40)
    assert smoothed([]).shape == (0,)
