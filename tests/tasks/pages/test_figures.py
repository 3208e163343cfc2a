"""Every figure is a picture with something in it, also of nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tasks.pages.figures import expert_load, lr_range, row_length_histogram, save, token_histogram, training_curves

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


@pytest.fixture(autouse=True)
def _are_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    """`save` as this module imported it, before other tests' pictures are left blank."""
    monkeypatch.setattr("tasks.pages.figures.save", save)


@pytest.mark.parametrize("name", FULL)
def test_a_figure_shows_its_data(tmp_path: Path, name: str) -> None:
    """The picture of some data is another one than that of none."""
    pictures = []
    for number, draw in enumerate((FULL[name], EMPTY[name])):
        path = tmp_path / "new folder" / f"{number}.png"
        assert draw(path) == path
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        pictures.append(imread(path))
    for picture in pictures:
        assert min(picture.shape[:2]) > 100
        assert picture.std() > 0.01, "a blank sheet"
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).mean() > 0.001


def test_a_curve_before_the_first_step_is_drawn(tmp_path: Path) -> None:
    assert training_curves(POINTS[:1], "title", tmp_path / "start.png").stat().st_size > 0
