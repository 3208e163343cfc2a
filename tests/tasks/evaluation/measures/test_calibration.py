"""Reliability in equally filled bins, and its error as the reference has it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation.measures.calibration import BINS, reliability
from tasks.evaluation.measures.metrics import combined_metrics
from tests.reference.measures import calibration_error


def error_of(confidence: np.ndarray, correct: np.ndarray, num_bins: int = BINS) -> float:
    bins = reliability(confidence, correct, num_bins)
    return combined_metrics({f"bin_{name}": bins[name].to_list() for name in bins.columns})["ece"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10**6), st.booleans()), min_size=1, max_size=60, unique_by=lambda x: x[0]))
def test_the_error_is_that_of_the_reference(lines: list[tuple[int, bool]]) -> None:
    confidence, correct = np.array([n / 10**6 for n, _ in lines]), np.array([right for _, right in lines])
    assert error_of(confidence, correct) == pytest.approx(calibration_error(confidence, correct, BINS), abs=1e-12)


def test_bins_hold_equally_many_and_every_target_once() -> None:
    rng = np.random.default_rng(0)
    bins = reliability(rng.random(1_000).astype(np.float32), rng.random(1_000) < 0.5)
    assert len(bins) == BINS and bins["tokens"].sum() == 1_000
    assert int(bins["tokens"].max()) - int(bins["tokens"].min()) <= 1  # type: ignore[arg-type]
    assert bins["confidence"].is_sorted()


def test_a_model_as_right_as_it_is_sure_has_hardly_an_error_and_a_boaster_has() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(20_000)
    honest = rng.random(20_000) < confidence
    assert error_of(confidence, honest) < 0.02
    assert error_of(np.sqrt(confidence), honest) == pytest.approx(2 / 3 - 1 / 2, abs=0.02)
