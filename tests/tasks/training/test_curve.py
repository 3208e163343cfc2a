"""The curve of a training: what is read back is what was added, and its steps' time is their sum."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.training.curve import Curve, read_points, stage_points, training_seconds


def test_a_curve_drops_the_points_after_a_restored_step(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs" / "curve.jsonl"
    curve = Curve(path, until=-1)
    for step in range(5):
        curve.add(step, {"train/loss": 3.0 - step})
    again = Curve(path, until=2)
    assert again.values("train/loss") == [3.0, 2.0, 1.0]
    again.truncate(1)
    assert again.values("train/loss") == [3.0, 2.0]
    assert stage_points(tmp_path) == read_points(path) == again.points


@pytest.mark.parametrize("cut", [2, 5, 20])
def test_a_line_that_was_cut_is_dropped_with_what_follows(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "curve.jsonl"
    curve = Curve(path, until=-1)
    for step in range(3):
        curve.add(step, {"train/loss": 3.0})
    path.write_bytes(path.read_bytes()[:-cut])
    assert [point["step"] for point in Curve(path, until=9).points] == [0, 1]
    assert [point["step"] for point in read_points(path)] == [0, 1]


def test_a_stage_without_a_curve_has_no_points(tmp_path: Path) -> None:
    assert stage_points(tmp_path) == []
    assert training_seconds([]) == 0


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(0.001, 100)), min_size=1, max_size=20))
def test_the_time_of_a_training_is_that_of_its_steps(steps: list[tuple[int, float]]) -> None:
    seen, points = 0, [{"step": 0, "val/bpb": 4.0}]
    for number, (tokens, seconds) in enumerate(steps, start=1):
        seen += tokens
        points.append({"step": number, "train/tokens_seen": seen, "train/tokens_per_s": tokens / seconds})
    assert training_seconds(points) == pytest.approx(sum(seconds for _, seconds in steps))
