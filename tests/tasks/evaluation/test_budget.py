"""The account of the error budget: no year spends more, whenever nights come; a night without a look spends nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation.budget import YEAR_DAYS, allowance
from tasks.evaluation.past import PastDecision, past_decisions
from tests.reference import promotion

START = datetime(2026, 1, 1, 1, 30, tzinfo=UTC)


def spending(hours: list[float], budget: float = 1.0) -> list[PastDecision]:
    """A comparison at each of these hours after the start."""
    past: list[PastDecision] = []
    for hour in hours:
        at = START + timedelta(hours=hour)
        alpha = allowance(past, at, budget).alpha
        past.append(PastDecision(at=at, promoted=False, alpha=alpha, difference_bpb=0.0))
    return past


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 24 * 200), min_size=1, max_size=120), st.sampled_from([0.1, 1.0, 12.0]), st.booleans())
def test_no_span_of_a_year_spends_more_than_the_budget(gaps: list[float], budget: float, sudden: bool) -> None:
    hours, hour = [], 0.0
    for gap in gaps:
        hour += 0.0 if sudden and gap < 2_000 else gap
        hours.append(hour)
    past = spending(hours, budget)
    for first in range(len(past)):
        span = [d.alpha for d in past[first:] if d.at < past[first].at + timedelta(days=YEAR_DAYS)]
        assert sum(span) <= budget * (1 + 1e-9)
    assert all(decision.alpha >= 0 for decision in past)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=30))
def test_the_account_is_that_kept_day_by_day_in_fractions(days: list[int]) -> None:
    days.sort()
    past = spending([24.0 * day for day in days], 2.0)
    assert [d.alpha for d in past] == pytest.approx([float(a) for a in promotion.spent(days, Fraction(2))])


def test_a_night_spends_about_a_365th_and_an_hour_about_an_8760th() -> None:
    nightly = spending([24.0 * night for night in range(150)])
    assert all(0.9 / 365 < decision.alpha < 1.02 / 365 for decision in nightly)
    hourly = spending([float(hour) for hour in range(300)])
    assert hourly[-1].alpha == pytest.approx((11 / 12) / (365 * 24), rel=0.05)
    assert all(later.alpha <= earlier.alpha for earlier, later in pairwise(hourly))


def test_nights_without_a_comparison_spend_nothing_and_save_a_month_at_most() -> None:
    ten = [24.0 * night for night in range(10)]
    rested = spending([*ten, 24.0 * 40])[-1].alpha
    assert rested == pytest.approx(1 / 360) == spending([*ten, 24.0 * 400])[-1].alpha
    assert spending(ten)[-1].alpha < rested


def test_bounds_are_taken_at_less_than_what_is_paid() -> None:
    """They fail more often than they say, and the account pays for how often they do."""
    tonight = allowance([], START, 1.0)
    assert tonight.level == tonight.alpha / 2


def test_a_clock_that_was_set_back_gains_nothing() -> None:
    past = spending([0.0, 240.0])
    earlier = allowance(past, START, 1.0)
    assert earlier.alpha == allowance(past, START + timedelta(hours=240), 1.0).alpha


def test_a_lower_budget_is_waited_for_not_owed() -> None:
    past = spending([0.0] * 60, 12.0)
    assert allowance(past, START, 0.1).alpha == 0
    assert "0.0000 of 0.1 false promotions a year spent" in allowance(past, START, 0.1).sentence
    assert allowance(past, START + timedelta(days=1), 0.1).alpha > 0


def test_the_journal_is_the_account() -> None:
    """Other recipes, other events, decisions without a comparison and lines of other releases spend nothing."""
    line = {"event": "decided", "recipe": "demo", "at": "2026-02-01T00:00:00+00:00", "promoted": True, "version": 3}
    compared = {"alpha": 0.002, "difference_bpb": -0.01, "audit_difference_bpb": None}
    entries = [
        line, line | compared, line | compared | {"recipe": "small"}, line | {"alpha": None}, {"event": "night"},
        compared, line | compared | {"audit_difference_bpb": -0.008, "unheard": 1},
    ]  # fmt: skip
    found = past_decisions(entries, "demo")
    assert [d.audit_difference_bpb for d in found] == [None, -0.008]
    assert {(d.alpha, d.promoted, d.difference_bpb) for d in found} == {(0.002, True, -0.01)}
    told = allowance(found, datetime(2026, 2, 2, tzinfo=UTC), 1.0)
    assert told.spent_in_a_year == pytest.approx(0.004)
    assert "0.0040 in the 365 days before" in told.sentence
