"""Geometry of charts: everything lies inside the view box, ticks are round, long lines keep their extremes."""

from __future__ import annotations

import math
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.pages.nights.charts import (
    HEIGHT,
    MOST_POINTS,
    MOST_TICKS,
    WIDTH,
    Chart,
    Event,
    Interval,
    Mark,
    Point,
    Series,
    Whisker,
    scale_over,
    shared_scale,
    thinned,
)
from tasks.pages.nights.numbers import known, long_time, short_number, signed
from tasks.pages.nights.words import phrase

numbers = st.floats(-1e9, 1e9) | st.floats(-1e-6, 1e-6)
values = st.lists(numbers, min_size=1, max_size=30)


def chart(points: list[Point], **changes: object) -> Chart:
    series = Series(label=phrase("chart.raw"), points=points)
    named = {"title": phrase("chart.raw"), "description": phrase("chart.raw"), "x_label": phrase("chart.step")}
    return Chart(id="c", **named, y_label=phrase("chart.nats"), series=[series], **changes)  # type: ignore[arg-type]


@settings(max_examples=80)
@given(ys=values, zero=st.booleans())
def test_lines_marks_and_whiskers_lie_inside(ys: list[float], zero: bool) -> None:
    points = [Point(float(x), y) for x, y in enumerate(ys)]
    drawn = chart(
        points, from_zero=zero, marks=[Mark(0.0, ys[0], "kept")], whiskers=[Whisker(0.0, min(ys), max(ys))],
        events=[Event(0.0, "x")],
    )  # fmt: skip
    for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", drawn.path(drawn.series[0])):
        assert 0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT
    [(left, top, _, _)] = drawn.placed_marks
    assert 0 <= left <= WIDTH and 0 <= top <= HEIGHT


@settings(max_examples=80)
@given(ys=values)
def test_ticks_are_few_round_and_on_the_axis(ys: list[float]) -> None:
    scale = scale_over(ys, 230.0, 14.0)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= MOST_TICKS + 1
    assert all(14 - 1e-6 <= tick.place <= 230 + 1e-6 for tick in ticks)


@settings(max_examples=40)
@given(ys=st.lists(st.floats(-9, 9), min_size=1, max_size=3000))
def test_thinned_lines_keep_their_ends_and_extremes(ys: list[float]) -> None:
    points = [Point(float(x), y) for x, y in enumerate(ys)]
    kept = thinned(points)
    assert len(kept) <= MOST_POINTS + 4 and list(kept) == sorted(kept)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert min(p.y for p in kept) == min(ys) and max(p.y for p in kept) == max(ys)


def test_what_is_not_finite_is_a_gap() -> None:
    path = chart([Point(0, 1.0), Point(1, math.nan), Point(2, 2.0)]).path(chart([]).series[0])
    assert path == ""
    drawn = chart([Point(0, 1.0), Point(1, math.nan), Point(2, 2.0)])
    assert drawn.path(drawn.series[0]).count("M") == 2


def test_an_interval_stays_in_its_scale() -> None:
    scale = shared_scale([-0.02, None, 0.01])
    interval = Interval(middle=-0.02, low=-9.0, high=0.01, scale=scale)
    assert interval.place(-9.0) == 0 and 0 < interval.place(-0.02) < interval.place(0) < 100
    assert shared_scale([]) == (-1.0, 1.0)


def test_numbers_are_short_and_minus_is_a_minus() -> None:
    assert [short_number(n) for n in (0, 5, 1.8526, 4510, 4.1e8, 1.4e-5, 0.0001)] == [
        "0", "5", "1.853", "4.51k", "410M", "1.4e-5", "1e-4",
    ]  # fmt: skip
    assert (signed(-0.02124), signed(0.0), signed(None)) == ("\u22120.0212", "+0.0000", "–")
    assert [long_time(s) for s in (None, 1.23, 42, 185, 7800, 273_600)] == [
        "–", "1.2 s", "42 s", "3 min 05 s", "2 h 10 min", "3 d 04 h",
    ]  # fmt: skip
    assert [known(v) for v in (True, "1", math.nan, math.inf, None, 2)] == [None] * 5 + [2.0]
