"""How nights ended, read from a journal: each once, but none that stands for another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.home.journal import Journal
from tasks.home.outcomes import Ending, NightOutcome, outcomes

KEPT = NightOutcome(recipe="tiny", key="a", day="2026-11-28", at="2026-11-28T01:30:00+00:00", ending="kept", reason="")


def test_a_night_counts_once_and_those_without_a_key_each_by_itself(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    early = replace(KEPT, key="", ending="stopped", reason="a source has no file")
    told = [
        replace(KEPT, ending="interrupted"),
        early,
        replace(early, at="2026-11-29T01:30:00+00:00"),
        replace(KEPT, ending="skipped", at="2026-11-30T01:30:00+00:00"),
        replace(KEPT, ending="skipped", at="2026-12-01T01:30:00+00:00"),
        replace(KEPT, recipe="其他"),
        KEPT,
    ]
    for outcome in told:
        outcome.note(journal)
    journal.note(event="night", recipe="tiny", of="another release")
    assert outcomes(journal.entries()) == told[1:]
    assert outcomes(journal.entries(), "其他") == [told[5]]


@pytest.mark.parametrize("ending", ["failed", "diverged", "stopped"])
def test_a_failure_counts_each_time_whatever_came_of_the_same_data_later(tmp_path: Path, ending: Ending) -> None:
    journal = Journal(tmp_path)
    failures = [replace(KEPT, ending=ending, at=f"2026-11-{day}T01:30:00+00:00") for day in (25, 26, 27)]
    for outcome in (*failures, replace(KEPT, ending="waits"), KEPT):
        outcome.note(journal)
    assert outcomes(journal.entries()) == [*failures, KEPT]
