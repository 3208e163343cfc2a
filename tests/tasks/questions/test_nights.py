"""The nights of a home: which recipe's, in what order, with which pages, and what an earlier release left."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from flows.__main__ import main
from tasks.errors import NightStopped
from tasks.home.contents.pages import night_page_path, nights_page_path
from tasks.home.journal import Journal
from tasks.home.outcomes import NightOutcome
from tasks.night.all_nights import note_end
from tasks.questions.nights import nights, nights_facts
from tests.tasks.pages.nights.reading import read_page


def outcome(number: int, recipe: str = "demo", **changes: object) -> NightOutcome:
    values = {
        "recipe": recipe, "key": f"{number:x}".ljust(64, "0"), "day": f"2026-11-{number:02d}", "ending": "kept",
        "version": number,
        "at": f"2026-11-{number:02d}T02:00:00+00:00", "reason": f"reason {number}", "bits_per_byte": 2.0,
    }  # fmt: skip
    return NightOutcome(**values | changes)  # type: ignore[arg-type]


@pytest.fixture
def past(tmp_path: Path) -> Path:
    """Three nights of `demo`, the last of which failed, and one of `other` before it."""
    journal = Journal(tmp_path)
    outcome(1, ending="promoted").note(journal)
    outcome(2).note(journal)
    outcome(3, recipe="other").note(journal)
    journal.note(event="promoted by hand", recipe="demo", version=1, before=2, rolled_back=2)
    outcome(4, ending="failed", version=None, bits_per_byte=None).note(journal)
    return tmp_path


def test_the_nights_of_the_recipe_that_ran_last(past: Path) -> None:
    facts = nights_facts(past)
    assert (facts.recipe, [night.day[-2:] for night in facts.nights]) == ("demo", ["01", "02", "04"])
    assert [(moved.version, moved.rolled_back) for moved in facts.by_hand] == [(1, 2)]
    other = nights_facts(past, "other")
    assert (len(other.nights), other.by_hand) == (1, [])


def test_a_night_that_goes_on_counts_once_and_one_that_failed_stays(past: Path) -> None:
    for ending in ("interrupted", "waits", "promoted"):
        outcome(4, ending=ending).note(Journal(past))
    assert [night.ending for night in nights_facts(past).nights] == ["promoted", "kept", "failed", "promoted"]


def test_a_page_is_linked_by_the_night_it_tells_of(past: Path) -> None:
    """A failed one until the same data was trained on after all, which writes another page in its place."""
    journal = Journal(past)
    night_page_path(past, "demo", "b" * 64).parent.mkdir(exist_ok=True)
    failed, done = (outcome(day, key="b" * 12, ending=ending) for day, ending in ((5, "failed"), (6, "promoted")))
    note_end(journal, failed)
    assert list(nights_facts(past).pages) == [failed.at]
    note_end(journal, done)
    assert list(nights_facts(past).pages) == [done.at]


def test_a_clock_that_was_set_back_changes_no_order(past: Path) -> None:
    outcome(2, key="late", reason="after the clock went back").note(Journal(past))
    facts = nights_facts(past)
    assert facts.nights[-1].reason == "after the clock went back"


def test_the_end_of_a_night_writes_the_pages_anew(past: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A failed night's own one, too; one that is skipped leaves those that are there."""
    page, own = nights_page_path(past, "demo"), night_page_path(past, "demo", "b" * 64)
    for ending in ("failed", "skipped"):
        reason = f"<b>{ending}</b>"
        note_end(Journal(past), outcome(5, key="b" * 12, ending=ending, version=None, reason=reason, seconds=65.0))
        told, broken = (path.read_text(encoding="utf-8") for path in (page, own))
        assert f"&lt;b&gt;{ending}" in told and f'href="{quote(own.name)}"' in told
        assert "1 min 05 s" in broken and "&lt;b&gt;failed" in broken and read_page(broken).tags
    own.unlink()
    page.unlink()
    page.mkdir()
    note_end(Journal(past), outcome(6))
    assert "the page over all nights could not be written" in caplog.text
    assert nights_facts(past).nights[-1].day == "2026-11-06", "the end itself is noted"


def test_nights_of_an_earlier_release_are_there_with_what_is_known(tmp_path: Path) -> None:
    decided = {
        "event": "decided",
        "recipe": "demo",
        "promoted": False,
        "reason": "old",
        "at": "2025-01-01T00:00:00+00:00",
    }
    journal = Journal(tmp_path)
    journal.note(**decided, version=77)
    journal.note(**decided | {"version": 2})  # which has a line of its own
    journal.note(event="decided", version=5, promoted=True, reason="of no recipe")
    outcome(2).note(journal)
    first, *others = nights_facts(tmp_path).nights
    assert (first.version, first.reason, first.key, first.day) == (77, "old", "", "2025-01-01")
    assert [night.version for night in others] == [2]


def test_pages_that_are_there_are_linked(past: Path) -> None:
    path = night_page_path(past, "demo", outcome(2).key)
    path.parent.mkdir()
    path.write_text("page")
    assert nights_facts(past).pages == {outcome(2).at: "demo%40200000000000.html"}


def test_the_command_prints_the_table_and_writes_the_page(
    past: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(past))
    assert main(["nights", "demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 nights of demo: 1 promoted, 1 kept, 1 failed"
    assert [line.split()[:2] for line in lines[3:6]] == [
        ["2026-11-04", "failed"], ["2026-11-02", "kept"], ["2026-11-01", "promoted"],
    ]  # fmt: skip
    assert lines[-1] == f"page  {nights_page_path(past, 'demo')}"
    page = read_page(nights_page_path(past, "demo").read_text(encoding="utf-8"))
    assert page.section("every_night").count("<tr><td>") == 3


def test_what_is_not_there_is_named(past: Path, tmp_path: Path) -> None:
    with pytest.raises(
        NightStopped, match=r"no night of recipe 'nope' has ended in .*, there are nights of demo, other"
    ):
        nights_facts(past, "nope")
    with pytest.raises(NightStopped, match=r"no night has ended in .*; run one"):
        next(nights(tmp_path / "empty"))
