"""What is told of a night's end, told by its outcome and those of the nights before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.home.journal import Journal
from tasks.home.outcomes import Ending, NightOutcome
from tasks.night.duty import alarms
from tasks.night.duty.alarms import ALARM, alarms_of, is_due, sound_alarms
from tasks.recipes.alarm_config import AlarmConfig
from tasks.services import endings
from tasks.services.notices import Notice
from tests.listener import Behaviour, listening

CONFIG = AlarmConfig()
START = datetime(2026, 11, 1, 2, 0, tzinfo=UTC)
GIGABYTE = 10**9


def night(number: int, ending: Ending = "kept", **known: object) -> NightOutcome:
    at = START + timedelta(days=number)
    plain = NightOutcome(
        recipe="tiny", key=f"key {number}", day=f"{at:%Y-%m-%d}", at=at.isoformat(), ending=ending, reason="so it is"
    )
    return replace(plain, **known)


def growing(*gigabytes: float) -> list[NightOutcome]:
    """Nights after each of which the home took so much."""
    return [night(number, home_bytes=round(size * GIGABYTE)) for number, size in enumerate(gigabytes)]


def kinds(*arguments: object) -> list[str]:
    return [alarm.kind for alarm in alarms_of(*arguments)]


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("promoted", []), ("kept", []), ("waits", []), ("skipped", []), ("interrupted", []),
        ("refused", ["refused"]), ("failed", ["failed"]), ("diverged", ["diverged"]), ("stopped", ["stopped"]),
    ],
)  # fmt: skip
def test_a_bad_end_is_told_with_its_reason_and_a_good_one_is_not(ending: Ending, told: list[str]) -> None:
    found = alarms_of([night(0, "failed"), night(1, ending)], GIGABYTE, CONFIG)
    assert [alarm.kind for alarm in found] == told
    assert all(alarm.text == "so it is" and "tiny 2026-11-02" in alarm.title for alarm in found)
    assert alarms_of([], 0, CONFIG) == []


def test_a_trunk_that_went_back_is_told_once() -> None:
    back = night(0, went_back="the challenger was clearly worse")
    assert kinds([back], GIGABYTE, CONFIG) == ["went-back"]
    assert kinds([back, night(1)], GIGABYTE, CONFIG) == []


@pytest.mark.parametrize(
    ("sizes", "free", "told"),
    [
        ((10, 11, 12), 6.9, ["disk"]),
        ((10, 11, 12), 7.1, []),
        ((10, 10, 10), 0.001, []),
        ((12, 11, 10), 0.001, []),
        ((10,), 0.001, []),
        ((0, 90, 90, 90, 90, 90, 90, 90, 90), 1, []),
    ],
    ids=["not a week", "a week", "flat", "shrinks", "one night", "only the first nights grew"],
)
def test_a_disk_that_does_not_last_a_week_is_told(sizes: tuple[float, ...], free: float, told: list[str]) -> None:
    assert kinds(growing(*sizes), round(free * GIGABYTE), CONFIG) == told


def test_the_message_names_both_numbers_and_the_cure() -> None:
    [alarm] = alarms_of(growing(10, 11, 12), 3 * GIGABYTE, CONFIG)
    assert alarm.text == (
        "The disk is full in 3.0 days: the home grew by 2.0 GB in 3 nights, 1.0 GB a day, and 3.0 GB are free; "
        "alarms.disk_days is 7. Make room, or keep less: python -m flows clean --dry-run says what could go"
    )


def test_a_clock_that_went_back_between_nights_gives_no_growth_of_its_own() -> None:
    """Nights stand in the journal's order; a day is what a night took then."""
    before, after = growing(10, 11)
    stepped = replace(after, at=(START - timedelta(days=30)).isoformat())
    assert kinds([before, stepped], 6 * GIGABYTE, CONFIG) == ["disk"]
    assert kinds([before, stepped], 8 * GIGABYTE, CONFIG) == []


@given(st.lists(st.integers(0, 10**15) | st.none(), max_size=12), st.integers(0, 10**15))
def test_more_room_never_makes_an_alarm(sizes: list[int | None], free: int) -> None:
    nights = [night(number, home_bytes=taken) for number, taken in enumerate(sizes)]
    assert "disk" not in kinds(nights, free + 10**16, CONFIG)
    if "disk" not in kinds(nights, free, CONFIG):
        assert "disk" not in kinds(nights, 2 * free, CONFIG)


@pytest.mark.parametrize(
    ("gains", "detectable", "told"),
    [
        ([0.001] * 5, 0.01, ["gate"]),
        ([0.001, 0.02, -0.1, 0.0, 0.001], 0.01, []),
        ([0.001] * 4, 0.01, []),
        ([0.001] * 5, None, []),
        ([-0.1] * 5, 0.01, ["gate"]),
    ],
    ids=["too small", "one was seen", "too few nights", "nothing compared", "all worse"],
)
def test_a_gate_that_nothing_can_pass_is_told(gains: list[float], detectable: float | None, told: list[str]) -> None:
    nights = [night(number, difference_bpb=-gain) for number, gain in enumerate(gains)]
    assert kinds([*nights, night(9)], GIGABYTE, CONFIG, detectable) == told


@pytest.mark.parametrize(
    ("endings", "upper", "told"),
    [
        (["promoted", *["refused"] * 5], -0.1, ["gate"]),
        (["refused"] * 4, -0.1, []),
        ([*["refused"] * 4, "kept"], -0.1, []),
        (["refused"] * 5, 0.1, []),
    ],
    ids=["all of the last", "too few nights", "one was not", "none is better"],
)
def test_limits_that_refuse_every_better_model_are_told(endings: list[Ending], upper: float, told: list[str]) -> None:
    nights = [night(n, end, version=n, difference_bpb=-0.2, upper_bpb=upper) for n, end in enumerate(endings)]
    found = [alarm for alarm in alarms_of([*nights, night(9)], GIGABYTE, CONFIG, 0.01) if alarm.kind == "gate"]
    assert [alarm.kind for alarm in found] == told
    assert all("python -m flows promote tiny 5" in alarm.text for alarm in found)


def notice(kind: str) -> Notice:
    return Notice(kind=kind, recipe="tiny", title="", text="")


def test_what_lasts_is_told_again_after_days_and_the_rest_each_time() -> None:
    at = START + timedelta(days=10)
    told = [{"event": ALARM, "recipe": "tiny", "kind": "disk", "at": (at - timedelta(days=6)).isoformat()}]
    assert not is_due(notice("disk"), told, at, 7)
    assert is_due(notice("disk"), told, at + timedelta(days=1), 7)
    assert is_due(notice("gate"), told, at, 7)
    assert is_due(notice("disk"), [entry | {"recipe": "other"} for entry in told], at, 7)
    assert is_due(notice("failed"), [entry | {"kind": "failed"} for entry in told], at, 7)
    assert not is_due(notice("disk"), told, at - timedelta(days=30), 7), "the clock went back"


@pytest.mark.parametrize("behaviour", ["takes", "fails", "hangs"])
def test_a_night_ends_well_whatever_becomes_of_its_notice(
    home: Path, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if behaviour == "hangs":
        monkeypatch.setattr("tasks.services.notices.TELL_SECONDS", 0.2)
    journal, outcome = Journal(home), night(3, went_back="clearly worse")
    outcome.note(journal)
    with listening(behaviour) as listener:
        monkeypatch.setenv("NIGHTSCHOOL_NOTIFY", listener.address)
        told = sound_alarms(journal, outcome, CONFIG)
        assert listener.arrived.wait(60)
    assert [alarm.kind for alarm in told] == ["went-back"]
    noted = [(entry["event"], entry.get("kind")) for entry in journal.entries()]
    assert noted == [("night", None), (ALARM, "went-back")]
    assert ("could not be told" in caplog.text) == (behaviour != "takes")


def test_a_home_that_went_away_fails_nothing(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert sound_alarms(Journal(home), night(0, "failed"), CONFIG) == []
    assert "who is to be told" in caplog.text


def test_an_error_that_a_night_told_is_not_told_by_its_flow_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Notice] = []
    for module in (alarms, endings):
        monkeypatch.setattr(module, "tell", told.append)
    journal, error = Journal(home), RuntimeError("broken")
    outcome = night(0, "failed")
    outcome.note(journal)
    sound_alarms(journal, outcome, CONFIG, error=error)

    class Ended:
        name, message = "Failed", ""

        def result(self, raise_on_failure: bool) -> BaseException:
            return error

    endings.tell_failure(None, None, Ended())
    assert [alarm.kind for alarm in told] == ["failed"]
