"""How all nights of a recipe ended: a table for the terminal and a page, from the journal alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks.errors import NightStopped
from tasks.home.contents.pages import night_page_path, nights_page_path
from tasks.home.journal import BY_HAND, DECIDED, Journal
from tasks.home.outcomes import NightOutcome, outcomes
from tasks.pages.nights.all_nights import ByHand, NightsFacts, write_nights_page
from tasks.pages.text import plural
from tasks.questions.history import listed


def nights(home: Path, wanted: str | None = None) -> Iterator[str]:
    """Lines for the terminal: the newest nights as a table, newest first, and where the page over all lies.

    wanted: a recipe; the one whose night ended last if left out.
    Raises NightStopped if no night has ended, or none of the recipe.
    """
    facts = nights_facts(home, wanted)
    counted = ", ".join(f"{count:,} {ending}" for ending, count in facts.endings)
    yield f"{plural(len(facts.nights), 'night')} of {facts.recipe}: {counted}"
    yield ""
    yield facts.as_table().as_text()
    yield ""
    yield f"page  {write_nights_page(nights_page_path(home, facts.recipe), facts)}"


def nights_facts(home: Path, wanted: str | None = None) -> NightsFacts:
    """What the page over all nights holds. Raises NightStopped as `nights` does."""
    entries = Journal(home).entries()
    every = every_night(entries)
    if not every:
        raise NightStopped(f"no night has ended in {home}; run one: python -m flows RECIPE")
    recipe = wanted or every[-1].recipe
    mine = [night for night in every if night.recipe == recipe]
    if not mine:
        others = sorted({night.recipe for night in every})
        raise NightStopped(
            f"no night of recipe {recipe!r:.80} has ended in {home}, there are nights of {listed(others)}"
        )
    paths = {night.key: night_page_path(home, recipe, night.key) for night in mine if night.key}
    pages = {key: quote(path.name) for key, path in paths.items() if path.exists()}
    return NightsFacts(recipe=recipe, nights=mine, by_hand=chosen_by_hand(entries, recipe), pages=pages)


def every_night(entries: Sequence[Mapping[str, Any]]) -> list[NightOutcome]:
    """All nights of all recipes in order of time; of those that an earlier release ended, what their decisions tell."""
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
    return sorted([*earlier, *told], key=lambda night: night.at)


def chosen_by_hand(entries: Sequence[Mapping[str, Any]], recipe: str) -> list[ByHand]:
    """Champions that a person chose, in order."""
    return [
        ByHand(at=str(entry.get("at", "")), version=int(entry["version"]), rolled_back=entry.get("rolled_back"))
        for entry in entries
        if entry.get("event") == BY_HAND and entry.get("recipe") == recipe
    ]
