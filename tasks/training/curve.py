"""The curve of a training stage: every step's metrics, a line each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from model.files import fsync, write_text
from tasks.home.records import LOGS

CURVE = "curve.jsonl"
Point = dict[str, float]
"""`step` and its metrics by name."""


def read_points(path: Path) -> list[Point]:
    """Points of a curve's file, none if there is no file, and none after a line that a crash of the machine cut."""
    points: list[Point] = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            point = json.loads(line)
        except ValueError:
            break
        if not isinstance(point, dict):
            break
        points.append(point)
    return points


def stage_points(folder: Path) -> list[Point]:
    """The curve of a finished training stage."""
    return read_points(folder / LOGS / CURVE)


def training_seconds(points: Sequence[Mapping[str, float]]) -> float:
    """Time of all optimizer steps, without validation, checkpoints and interruptions."""
    return sum(seconds for _, seconds in timed_steps(points))


def waited_share(points: Sequence[Mapping[str, float]]) -> float:
    """The share of that time in which steps waited for their rows; 0 if there are none."""
    waited = sum(point["train/data_wait_share"] * seconds for point, seconds in timed_steps(points))
    return waited / (training_seconds(points) or 1.0)


def timed_steps(points: Sequence[Mapping[str, float]]) -> Iterator[tuple[Mapping[str, float], float]]:
    """The points of a curve that are steps, each with its seconds."""
    seen = 0.0
    for point in points:
        if "train/tokens_per_s" in point:
            yield point, (point["train/tokens_seen"] - seen) / point["train/tokens_per_s"]
            seen = point["train/tokens_seen"]


class Curve:
    """Every step's metrics as a line of a file."""

    def __init__(self, path: Path, until: int) -> None:
        """Open the curve of an earlier process, if there is one, and drop its points after step `until`."""
        self.path = path
        self.points: list[Point] = read_points(path)
        self.truncate(until)

    def truncate(self, last_step: int) -> None:
        """Drop the points after a step, from the file too: that step is restored, and those after it are redone."""
        self.points = [point for point in self.points if point["step"] <= last_step]
        write_text(self.path, "".join(json.dumps(point) + "\n" for point in self.points))

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        self.points.append({"step": step, **metrics})
        with self.path.open("a") as stream:
            stream.write(json.dumps(self.points[-1]) + "\n")

    def sync(self) -> None:
        """Bring the points to the disk: a checkpoint that outlives a crash of the machine needs those before it."""
        fsync(self.path)

    def values(self, key: str) -> list[float]:
        """A metric over all points that have it."""
        return [point[key] for point in self.points if key in point]
