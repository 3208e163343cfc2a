"""The end of a night as all nights see it: its line in the journal, and the page over them written anew."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks.faults import where_traceback_is
from tasks.home.contents.pages import night_page_path, nights_page_path
from tasks.home.journal import BY_HAND, DECIDED, Journal
from tasks.home.outcomes import SKIPPED, NightOutcome, outcomes
from tasks.pages.nights.all_nights import NOT_AS_MEANT, ByHand, NightsFacts, write_nights_page
from tasks.pages.nights.broken import write_broken_page

log = logging.getLogger("nightschool")


def note_end(journal: Journal, outcome: NightOutcome) -> None:
    """Append how a night ended to the journal, and write the page over all nights of its recipe, and its own if it did
    not come to its end. One that was skipped did nothing, and has no page but that.

    A page that cannot be written is told in the log: it neither ends a night nor hides why one ended.
    """
    outcome.note(journal)
    home, recipe = journal.home, outcome.recipe
    try:
        if outcome.key and outcome.ending in NOT_AS_MEANT:
            write_broken_page(night_page_path(home, recipe, outcome.key), outcome)
        write_nights_page(nights_page_path(home, recipe), facts_of(home, journal.entries(), recipe))
    except Exception as error:
        log.warning("the page over all nights could not be written; %s", where_traceback_is(error, home))


def facts_of(home: Path, entries: Sequence[Mapping[str, Any]], recipe: str) -> NightsFacts:
    """What the page over all nights of a recipe holds, one of which has ended."""
    mine = [night for night in every_night(entries) if night.recipe == recipe]
    newest = {night.key: night for night in mine if night.key and night.ending != SKIPPED}
    paths = {
        night.at: night_page_path(home, recipe, night.key) for night in mine
        if night.key and (night.ending not in NOT_AS_MEANT or night == newest[night.key])
    }  # fmt: skip
    pages = {at: quote(path.name) for at, path in paths.items() if path.exists()}
    return NightsFacts(recipe=recipe, nights=mine, by_hand=chosen_by_hand(entries, recipe), pages=pages)


def every_night(entries: Sequence[Mapping[str, Any]]) -> list[NightOutcome]:
    """All nights of all recipes in the order of the journal, whatever the clock said; of those that an earlier release
    ended, what their decisions tell."""
    told = outcomes(entries)
    known = {(night.recipe, night.version) for night in told}
    earlier = [
        NightOutcome(
            recipe=entry["recipe"], key="", day=str(entry["at"])[:10], at=entry["at"],
            ending="promoted" if entry["promoted"] else "kept", reason=entry["reason"], version=entry["version"],
        )
        for entry in entries
        if entry.get("event") == DECIDED and {"recipe", "at", "promoted", "reason", "version"} <= entry.keys()
        and (entry["recipe"], entry["version"]) not in known
    ]  # fmt: skip
    place = {(entry.get("recipe"), entry.get("at")): number for number, entry in enumerate(entries)}
    return sorted([*earlier, *told], key=lambda night: place[night.recipe, night.at])


def chosen_by_hand(entries: Sequence[Mapping[str, Any]], recipe: str) -> list[ByHand]:
    """Champions that a person chose, in order."""
    return [
        ByHand(at=str(entry.get("at", "")), version=int(entry["version"]), rolled_back=entry.get("rolled_back"))
        for entry in entries
        if entry.get("event") == BY_HAND and entry.get("recipe") == recipe
    ]
