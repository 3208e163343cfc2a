"""Missed nights are one, and a clock change makes no night of none or two."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.server.schemas.schedules import CronSchedule as ServerCron

from tasks.night.duty.schedule import overtaken_by
from tasks.recipes.deployments import DEPLOYMENTS, read_deployments
from tasks.services.deployments import fires

NOW = datetime(2026, 11, 29, 9, 0, tzinfo=UTC)
CHANGES = {
    "UTC": (datetime(2026, 3, 29), datetime(2026, 10, 25)),
    "Europe/Berlin": (datetime(2026, 3, 29), datetime(2026, 10, 25)),
    "America/New_York": (datetime(2026, 3, 8), datetime(2026, 11, 1)),
}
"""By zone, the days on which the clock goes forward and back there; UTC has none."""


def run(days_ago: float, auto: bool = True, number: int = 0) -> Any:
    return SimpleNamespace(
        id=UUID(int=number or round(days_ago * 24) + 100_000), name=f"night {days_ago:g} days ago",
        auto_scheduled=auto, expected_start_time=NOW - timedelta(days=days_ago),
    )  # fmt: skip


def test_of_five_missed_nights_the_last_one_is_done() -> None:
    missed = [run(days) for days in (5, 4, 3, 2, 1)]
    reasons = [overtaken_by(one, missed, NOW) for one in missed]
    assert [bool(reason) for reason in reasons] == [True, True, True, True, False]
    assert reasons[0] == (
        "this night was due at 2026-11-24 09:00 UTC, and 4 newer ones of its schedule since, the last at "
        "2026-11-28 09:00 UTC: that one (night 1 days ago) stands for all"
    )


def test_a_run_that_is_not_due_yet_or_was_ordered_by_a_person_overtakes_none() -> None:
    assert overtaken_by(run(1), [run(-1), run(0.5, auto=False)], NOW) == ""


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 9)), min_size=1, unique=True))
def test_exactly_one_of_all_that_are_due_is_done_whatever_the_order(times: list[tuple[int, int]]) -> None:
    runs = [run(hours / 24, number=(hours + 51) * 10 + number) for hours, number in times]
    due = [one for one in runs if one.expected_start_time <= NOW]
    done = [one for one in due if not overtaken_by(one, runs, NOW)]
    assert len(done) == min(len(due), 1)
    assert all(one.expected_start_time == max(other.expected_start_time for other in due) for one in done)


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize("change", [0, 1], ids=["forward", "back"])
@pytest.mark.parametrize("cron", ["30 1 * * *", "30 4 * * *"])
def test_a_clock_change_has_one_night_each_day(zone: str, change: int, cron: str) -> None:
    """By Prefect's own reckoning: a week around the change, a night each day, all at the time that was meant."""
    day = CHANGES[zone][change]
    start = (day - timedelta(days=3)).replace(tzinfo=ZoneInfo(zone))
    times = [time.astimezone(ZoneInfo(zone)) for time in fires({"cron": cron, "timezone": zone}, 7, start)]
    assert [f"{time:%Y-%m-%d}" for time in times] == [f"{start.date() + timedelta(days=n)}" for n in range(7)]
    assert {f"{time:%H:%M}" for time in times} == {f"0{cron[3]}:30"}
    assert len({time.astimezone(UTC) for time in times}) == 7


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("change", [0, 1], ids=["forward", "back"])
def test_a_night_in_the_hour_that_is_missing_or_comes_twice_is_still_one(zone: str, change: int) -> None:
    """At half past one and two: one of them is missing in spring, and one comes twice in autumn."""
    day = CHANGES[zone][change]
    for hour in (1, 2):
        start = (day - timedelta(days=2)).replace(tzinfo=ZoneInfo(zone))
        times = fires({"cron": f"30 {hour} * * *", "timezone": zone}, 6, start)
        days = [time.astimezone(ZoneInfo(zone)).date() for time in times]
        assert len(set(days)) == len(days) == 6, f"{hour}:30 in {zone}"


def test_schedules_of_the_project_are_in_utc() -> None:
    zones = {s["timezone"] for d in read_deployments(DEPLOYMENTS) for s in d.get("schedules") or []}
    assert zones == {"UTC"}
    assert ServerCron(cron="30 1 * * *").timezone is None, "which the server takes for UTC"
