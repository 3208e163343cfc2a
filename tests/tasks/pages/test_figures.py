"""Every figure is a picture with something in it, also of nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from model.dynamics.smoothing import smoothed
from tasks.pages.figures import expert_load, lr_range, row_length_histogram, token_histogram, training_curves

Drawer = Callable[[Path], Path]
POINTS = [{"step": 0, "val/loss": 3.0}] + [
    {"step": n, "train/loss": 3.0 - n / 10, "train/lr": 0.1 / n} | ({"val/loss": 2.5} if n % 3 == 0 else {})
    for n in range(1, 8)
]
LOAD = np.array([[1.0, 2.0, 3.0, 2.0], [0.0, 0.0, 8.0, 0.0]])
RANGE = {"lr": [1e-4, 1e-3, 1e-2], "loss": [4.0, 3.0, float("inf")], "smoothed": [4.0, 3.9, float("inf")]}
FULL: dict[str, Drawer] = {
    "row lengths": lambda path: row_length_histogram({"a": [5, 50, 500], "b": [7]}, path),
    "token lengths": lambda path: token_histogram({"a": [5, 50, 500], "b": [7]}, path),
    "curves": lambda path: training_curves(POINTS, "title", path),
    "load": lambda path: expert_load(LOAD, "title", path),
    "range": lambda path: lr_range(RANGE, {"best": 1e-3}, path),
}
EMPTY: dict[str, Drawer] = {
    "row lengths": lambda path: row_length_histogram({"a": []}, path),
    "token lengths": lambda path: token_histogram({"a": []}, path),
    "curves": lambda path: training_curves([], "title", path),
    "load": lambda path: expert_load(np.zeros((2, 4)), "title", path),
    "range": lambda path: lr_range({"lr": [], "loss": [], "smoothed": []}, {"best": 1e-3}, path),
}


@pytest.mark.parametrize("name", FULL)
def test_a_figure_shows_its_data(tmp_path: Path, name: str) -> None:
    """The picture of some data is another one than that of none."""
    pictures = []
    for number, draw in enumerate((FULL[name], EMPTY[name])):
        wanted = tmp_path / "new folder" / f"{number}.png"
        assert draw(wanted) == wanted
        assert wanted.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        pictures.append(imread(wanted))
    for picture in pictures:
        assert min(picture.shape[:2]) > 100
        assert picture.std() > 0.01, "a blank sheet"
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).mean() > 0.001


def test_a_curve_before_the_first_step_is_drawn(tmp_path: Path) -> None:
    assert training_curves(POINTS[:1], "title", tmp_path / "start.png").stat().st_size > 0


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
