"""Charts as geometry that a template draws as inline SVG: differences show by shape or pattern, not by colour alone.

A narrow screen shrinks a chart as a whole; its style sheet makes the words larger in turn, for which the margins have
the room.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tasks.pages.nights.numbers import short_number
from tasks.pages.nights.words import Phrase

WIDTH, HEIGHT = 640.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 76.0, 16.0, 14.0, 40.0
MOST_POINTS = 400
"""Of a drawn line; longer ones show the least and the greatest of each stretch."""
MOST_MARKS = 150
"""Above so many, marks are drawn without words of their own; a table has them."""
MOST_TICKS = 5
Style = Literal["raw", "smooth", "dashed", "step", "bars"]


class Point(NamedTuple):
    x: float
    y: float


class Tick(NamedTuple):
    """A label, and where on the axis it stands, in units of the view box."""

    place: float
    label: str


class Mark(NamedTuple):
    """A shape at a place, both in units of the data, with the words that pointing at it shows."""

    x: float
    y: float
    shape: str
    title: str = ""


class Whisker(NamedTuple):
    """An interval at a place on the x-axis."""

    x: float
    low: float
    high: float


class Event(NamedTuple):
    """Something that happened at a place on the x-axis, across the whole height."""

    x: float
    label: Phrase | str
    style: str = "event"


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line through points; a value that is not finite leaves a gap."""

    label: Phrase
    points: Sequence[Point]
    style: Style = "smooth"
    marks: bool = False
    """Whether each point has a diamond on it."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From a number of the data to a place in the view box."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, whole: bool = False) -> list[Tick]:
        """At most MOST_TICKS round numbers. `whole`: integers alone."""
        span = self.high - self.low
        step = 10 ** math.floor(math.log10(span / MOST_TICKS))
        step = next(s for s in (step, 2 * step, 5 * step, 10 * step, 20 * step) if span / s <= MOST_TICKS)
        step = max(step, 1) if whole else step
        first = math.ceil(self.low / step - 1e-9)
        numbers = [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [Tick(self(number), short_number(round(number, 12))) for number in numbers]


def scale_over(values: Sequence[float], start: float, end: float, zero: bool = False, room: float = 0.06) -> Scale:
    """A scale over finite values, with `room` beside the outermost. `zero`: it begins there."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if zero:
        low = min(0.0, low)
    if low == high:
        low, high = (0.0, 2 * high) if zero and high > 0 else (low - abs(low) / 10 - 0.5, high + abs(high) / 10 + 0.5)
    span = high - low
    return Scale(low=low if zero else low - room * span, high=high + room * span, start=start, end=end)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing with its name, axes, lines, intervals and marks."""

    id: str
    """Unique on the page; letters, digits and dashes."""
    title: Phrase
    description: Phrase
    """What there is to see, for those who do not see it."""
    x_label: Phrase
    y_label: Phrase
    series: Sequence[Series] = ()
    whiskers: Sequence[Whisker] = ()
    marks: Sequence[Mark] = ()
    events: Sequence[Event] = ()
    named_x: Sequence[tuple[float, str]] = ()
    """Labels of the x-axis; numbers if none are given."""
    from_zero: bool = False
    zero_line: bool = False
    height: float = HEIGHT

    @property
    def x(self) -> Scale:
        values = [p.x for s in self.series for p in s.points] + [w.x for w in self.whiskers]
        values += [m.x for m in self.marks] + [e.x for e in self.events]
        return scale_over(values, LEFT, WIDTH - RIGHT, room=0.02)

    @property
    def y(self) -> Scale:
        values = [p.y for s in self.series for p in s.points] + [m.y for m in self.marks]
        values += [y for w in self.whiskers for y in (w.low, w.high)] + ([0.0] if self.zero_line else [])
        return scale_over(values, self.height - BOTTOM, TOP, zero=self.from_zero)

    @property
    def x_ticks(self) -> list[Tick]:
        x = self.x
        if not self.named_x:
            return x.ticks(whole=True)
        return [Tick(x(place), label) for place, label in self.named_x]

    def path(self, series: Series) -> str:
        """The line as SVG writes it."""
        x, y = self.x, self.y
        if series.style == "bars":
            return "".join(f"M{x(p.x):.1f} {y.start:.1f}V{y(p.y):.1f}" for p in series.points if math.isfinite(p.y))
        parts, pen = [], "M"
        for point in thinned(series.points):
            if not math.isfinite(point.y):
                pen = "M"
                continue
            joined = series.style == "step" and pen == "L"
            parts.append(f"H{x(point.x):.1f}V{y(point.y):.1f}" if joined else f"{pen}{x(point.x):.1f} {y(point.y):.1f}")
            pen = "L"
        return "".join(parts)

    @property
    def whisker_path(self) -> str:
        """All intervals in one path, with a bar across each end."""
        x, y, half = self.x, self.y, 3.0 if len(self.whiskers) <= MOST_MARKS else 0.0
        parts = []
        for whisker in self.whiskers:
            place, low, high = x(whisker.x), y(whisker.low), y(whisker.high)
            parts.append(f"M{place:.1f} {low:.1f}V{high:.1f}")
            parts += [f"M{place - half:.1f} {end:.1f}h{2 * half:g}" for end in (low, high) if half]
        return "".join(parts)

    @property
    def placed_marks(self) -> Iterator[tuple[float, float, str, str]]:
        x, y, told = self.x, self.y, len(self.marks) <= MOST_MARKS
        for mark in self.marks:
            yield x(mark.x), y(mark.y), mark.shape, mark.title if told else ""


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> Sequence[Point]:
    """At most about `most` points that look like all: of each stretch its least and its greatest, and the ends."""
    if len(points) <= most:
        return points
    stretch = math.ceil(2 * len(points) / most)
    kept: dict[int, Point] = {0: points[0], len(points) - 1: points[-1]}
    for first in range(0, len(points), stretch):
        part = range(first, min(first + stretch, len(points)))
        finite = [i for i in part if math.isfinite(points[i].y)]
        ends = (min, max) if finite else ()
        chosen = [pick(finite, key=lambda i: points[i].y) for pick in ends] or part[:1]
        kept |= {i: points[i] for i in chosen}
    return [kept[i] for i in sorted(kept)]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate between two bounds, drawn over a scale that all rows of a table share. Places are in percent."""

    middle: float
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    """Beyond which the row fails."""
    passed: bool = True
    scale: tuple[float, float]

    def place(self, value: float) -> float:
        low, high = self.scale
        return 100 * (min(max(value, low), high) - low) / (high - low)


def shared_scale(values: Sequence[float | None]) -> tuple[float, float]:
    """A scale that holds zero and all values, with some room."""
    present = [0.0, *(value for value in values if value is not None)]
    low, high = min(present), max(present)
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room
