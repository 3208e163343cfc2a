"""How all nights of a recipe ended: a table for the terminal and a page, from the journal alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tasks.errors import NightStopped
from tasks.home.contents.pages import nights_page_path
from tasks.home.journal import Journal
from tasks.night.all_nights import every_night, facts_of
from tasks.pages.nights.all_nights import NightsFacts, write_nights_page
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
    others = sorted({night.recipe for night in every})
    if recipe not in others:
        raise NightStopped(
            f"no night of recipe {recipe!r:.80} has ended in {home}, there are nights of {listed(others)}"
        )
    return facts_of(home, entries, recipe)
