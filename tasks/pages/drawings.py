"""Bars and histograms: the geometry that templates draw as inline SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from tasks.pages.rendering import render

PLOT_WIDTH, PLOT_HEIGHT, GAP = 260.0, 70.0, 0.75
"""Size of a histogram's plot, and the space on either side of a column, in units of its view box."""
TALLEST = 66.0
"""Height of the highest column; every column that counts something is a unit higher than its share of it."""


class Part(NamedTuple):
    """A named part of a whole."""

    name: str
    size: float
    colour: str
    """As CSS writes it."""


class Segment(NamedTuple):
    """A part with its place in a bar, in percent of the bar's width."""

    part: Part
    left: float
    width: float


@dataclass(frozen=True)
class Bar:
    """Parts of a whole side by side; pointing at one shows its name and size."""

    parts: Sequence[Part]
    whole: float
    style: str = ""
    """Further CSS classes."""

    @property
    def segments(self) -> Iterator[Segment]:
        """The parts that are not empty; parts that sum to less than the whole leave the rest of the bar free."""
        left = 0.0
        for part in self.parts:
            width = 100 * part.size / self.whole if self.whole else 0.0
            if width:
                yield Segment(part, left, width)
            left += width

    def as_html(self) -> Markup:
        return render("bar.html.j2", bar=self)


@dataclass(frozen=True)
class Rectangle:
    """A column of a histogram, in units of its view box."""

    label: str
    count: int
    x: float
    y: float
    width: float
    height: float


class Tick(NamedTuple):
    """A label below the axis of a histogram."""

    label: str
    x: float


@dataclass(frozen=True)
class Histogram:
    """Columns that are scaled to the highest."""

    bins: Sequence[tuple[str, int]]
    """(what the bin holds, count)."""
    edges: Sequence[tuple[int, str]]
    """(index of a bin, the label of its left edge)."""
    colour: str
    """As CSS writes it."""

    @property
    def bin_width(self) -> float:
        return PLOT_WIDTH / max(1, len(self.bins))

    @property
    def rectangles(self) -> Iterator[Rectangle]:
        """A column for each bin that is not empty."""
        highest = max((count for _, count in self.bins), default=0)
        for index, (label, count) in enumerate(self.bins):
            if count:
                height = TALLEST * count / highest + 1
                yield Rectangle(
                    label, count, index * self.bin_width + GAP, PLOT_HEIGHT - height, self.bin_width - 2 * GAP, height
                )

    @property
    def ticks(self) -> Iterator[Tick]:
        for index, label in self.edges:
            yield Tick(label, index * self.bin_width)

    def as_html(self) -> Markup:
        return render("histogram.html.j2", histogram=self)
