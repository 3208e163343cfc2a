"""The page over all nights of a recipe: how each ended, and bits per byte, data, disk and time over the nights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby, pairwise
from pathlib import Path

from tasks.home.outcomes import NightOutcome
from tasks.pages.nights.charts import MOST_MARKS, MOST_TICKS, Chart, Event, Mark, Point, Series, Whisker
from tasks.pages.nights.numbers import long_time, signed
from tasks.pages.nights.rendering import write_page
from tasks.pages.nights.words import Phrase, phrase
from tasks.pages.tables import Cell, Column, Table
from tasks.pages.text import format_bytes

ENDINGS = ("promoted", "kept", "waits", "refused", "skipped", "failed", "diverged", "stopped", "interrupted")
"""In the order in which they are counted and drawn."""
NOT_AS_MEANT = ("failed", "diverged", "stopped", "interrupted")
LANE = 22.0
REASON_CHARACTERS = 70
"""Of a reason on a line of the terminal; the page has all of it."""


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """A champion that a person chose, between the nights."""

    at: str
    """In UTC, as ISO 8601 has it."""
    version: int
    rolled_back: int | None = None
    """The version that was taken out of use by it."""


@dataclass(frozen=True, kw_only=True)
class NightsFacts:
    """What the page over all nights is made of."""

    recipe: str
    nights: Sequence[NightOutcome]
    """In order of time, one at least."""
    by_hand: Sequence[ByHand] = ()
    pages: Mapping[str, str] = field(default_factory=dict)
    """Address of a night's own page, relative to this one, by when the night ended; of those that have one. A failed
    night has it no longer once the same data was trained on after all."""

    @property
    def endings(self) -> list[tuple[str, int]]:
        """How often each ending there was, of those that there were."""
        counted = Counter[str](night.ending for night in self.nights)
        return [(ending, counted[ending]) for ending in ENDINGS if counted[ending]]

    @property
    def champion(self) -> NightOutcome | None:
        """The night whose model was promoted last by the gate."""
        return next((night for night in reversed(self.nights) if night.ending == "promoted"), None)

    @property
    def since_failure(self) -> Phrase | None:
        """What is wrong with the newest night; None if nothing is."""
        newest = self.nights[-1]
        return phrase("nights.newest_failed", reason=newest.reason) if newest.ending in NOT_AS_MEANT else None

    @property
    def by_time(self) -> bool:
        """Whether a night's place is its day; else nights stand side by side, as most of them share a day."""
        days = {night.day for night in self.nights if is_day(night.day)}
        return len(days) > 1 and 2 * len(days) >= len(self.nights) and all(is_day(n.day) for n in self.nights)

    @property
    def places(self) -> list[float]:
        """Of each night on the x-axis."""
        if self.by_time:
            return [float(date.fromisoformat(night.day).toordinal()) for night in self.nights]
        return [float(number) for number in range(1, len(self.nights) + 1)]

    @property
    def named_x(self) -> list[tuple[float, str]]:
        """Days below the axis, evenly over it; numbers of nights speak for themselves."""
        if not self.by_time:
            return []
        first, last = int(min(self.places)), int(max(self.places))
        days = sorted({round(first + (last - first) * (part + 0.5) / MOST_TICKS) for part in range(MOST_TICKS)})
        return [(float(day), date.fromordinal(day).isoformat()) for day in days]

    @property
    def months(self) -> list[tuple[str, list[NightOutcome]]]:
        """The nights by month, newest first."""
        return [(month, list(nights)) for month, nights in groupby(reversed(self.nights), lambda night: night.day[:7])]

    @property
    def charts(self) -> list[Chart]:
        """Those for which there are values."""
        drawn = [
            self._bits_per_byte(), self._differences(), self._endings(),
            self._over_nights("minutes", lambda night: None if night.seconds is None else night.seconds / 60, "bars"),
            self._over_nights("rows", lambda night: night.rows),
            self._over_nights("disk", lambda night: night.home_bytes),
        ]  # fmt: skip
        return [chart for chart in drawn if chart]

    @property
    def lanes(self) -> list[str]:
        """Endings in their chart, from top to bottom."""
        return [ending for ending, _ in self.endings]

    def _endings(self) -> Chart:
        lanes = self.lanes
        marks = [
            Mark(place, float(-lanes.index(night.ending)), night.ending, title_of(night))
            for place, night in zip(self.places, self.nights, strict=True)
        ]
        return self._chart("endings", marks=marks, height=64 + LANE * len(lanes))

    def _bits_per_byte(self) -> Chart | None:
        scored = [(x, n) for x, n in zip(self.places, self.nights, strict=True) if n.bits_per_byte is not None]
        if not scored:
            return None
        whiskers = [Whisker(x, *bounds) for x, night in scored if (bounds := score_bounds(night))]
        few = len(scored) <= MOST_MARKS
        marks = [
            Mark(x, n.bits_per_byte, n.ending, title_of(n))
            for x, n in scored
            if n.bits_per_byte is not None and (few or n.ending in ("promoted", "refused"))
        ]
        line = Series(label=phrase("nights.line_bpb"), points=[Point(x, n.bits_per_byte or 0.0) for x, n in scored])
        return self._chart("bpb", series=[line], whiskers=whiskers, marks=marks, events=self._new_validation())

    def _new_validation(self) -> list[Event]:
        """Where the scores are on other documents than before: figures on both sides of it do not compare."""
        known = [(x, n.validation) for x, n in zip(self.places, self.nights, strict=True) if n.validation]
        return [Event(x, phrase("nights.new_validation", version=v), "validation")
                for (_, before), (x, v) in pairwise(known) if before != v]  # fmt: skip

    def _differences(self) -> Chart | None:
        compared = [(x, n) for x, n in zip(self.places, self.nights, strict=True) if n.difference_bpb is not None]
        if not compared:
            return None
        few = len(compared) <= MOST_MARKS
        return self._chart(
            "difference", zero_line=True,
            whiskers=[Whisker(x, n.lower_bpb, n.upper_bpb) for x, n in compared
                      if n.lower_bpb is not None and n.upper_bpb is not None],
            marks=[Mark(x, n.difference_bpb, n.ending, title_of(n)) for x, n in compared
                   if n.difference_bpb is not None and (few or n.ending == "promoted")],
            series=[] if few else [Series(label=phrase("nights.line_difference"), style="raw",
                                          points=[Point(x, n.difference_bpb or 0.0) for x, n in compared])],
        )  # fmt: skip

    def _over_nights(
        self, name: str, value: Callable[[NightOutcome], float | int | None], style: str = "step"
    ) -> Chart | None:
        found = [(x, value(night)) for x, night in zip(self.places, self.nights, strict=True)]
        points = [Point(x, float(number)) for x, number in found if number is not None]
        if not points:
            return None
        shown = "bars" if style == "bars" or len(points) == 1 else "step"
        series = Series(label=phrase(f"nights.y_{name}"), points=points, style=shown)  # type: ignore[arg-type]
        return self._chart(name, series=[series], from_zero=True, height=150.0)

    def _chart(self, name: str, **drawn: object) -> Chart:
        return Chart(
            id=f"nights-{name}", title=phrase(f"nights.{name}_title"),
            description=phrase(f"nights.{name}_seen", nights=f"{len(self.nights):,}"),
            x_label=phrase("nights.x_day" if self.by_time else "nights.x_number"), y_label=phrase(f"nights.y_{name}"),
            named_x=self.named_x, **drawn,  # type: ignore[arg-type]
        )  # fmt: skip

    def as_table(self) -> Table:
        """For a terminal, newest first; as many as a table shows."""
        columns = [
            Column("day"), Column("ended"), Column("version", "number"), Column("bits per byte", "number"),
            Column("against champion", "number"), Column("rows", "number"), Column("home", "number"),
            Column("time", "number"), Column("why", max_characters=REASON_CHARACTERS),
        ]  # fmt: skip
        return Table(columns, [row_of(night) for night in reversed(self.nights)]).without_empty_columns()


def score_bounds(night: NightOutcome) -> tuple[float, float] | None:
    """Where a model's score lies against the champion's, which the interval takes as it is; None without one."""
    score, difference, lower, upper = night.bits_per_byte, night.difference_bpb, night.lower_bpb, night.upper_bpb
    if score is None or difference is None or lower is None or upper is None:
        return None
    return score - difference + lower, score - difference + upper


def is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def title_of(night: NightOutcome) -> str:
    """A night in a few words that are the same in every language."""
    version = f"v{night.version}" if night.version else ""
    score = "" if night.bits_per_byte is None else f"{night.bits_per_byte:.4f}"
    return " ".join(filter(None, (night.day, version, score)))


def row_of(night: NightOutcome) -> list[Cell]:
    return [
        night.day, night.ending, "" if night.version is None else str(night.version),
        "" if night.bits_per_byte is None else f"{night.bits_per_byte:.4f}",
        "" if night.difference_bpb is None else signed(night.difference_bpb) + bounds_of(night),
        "" if night.rows is None else f"{night.rows:,}",
        "" if night.home_bytes is None else format_bytes(night.home_bytes),
        "" if night.seconds is None else long_time(night.seconds), night.reason,
    ]  # fmt: skip


def bounds_of(night: NightOutcome) -> str:
    """The interval of the difference, in brackets; empty where it is not known."""
    if night.lower_bpb is None or night.upper_bpb is None:
        return ""
    return f" [{signed(night.lower_bpb)}, {signed(night.upper_bpb)}]"


def write_nights_page(path: Path, facts: NightsFacts) -> Path:
    """Write the page; returns its path."""
    return write_page(path, "nights/nights.html.j2", facts=facts)
