"""A night that would repeat one that is done: it is skipped before anything is tracked or trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from prefect.states import Completed

from tasks.errors import MESSAGE_LIMIT, StoreAway
from tasks.home.journal import KEY_CHARACTERS, Journal
from tasks.home.lines import now
from tasks.home.notes import Note, night_notes, store_label
from tasks.home.outcomes import NightOutcome
from tasks.home.records import StageRecord
from tasks.night.all_nights import note_end
from tasks.night.duty.alarms import sound_alarms
from tasks.night.duty.schedule import why_stale
from tasks.night.incumbent import standing_now
from tasks.pages.text import one_line
from tasks.recipes.recipe import Recipe
from tasks.settings import Settings
from tasks.tracking.mlflow_store import Store
from tasks.tracking.registry import Registry

MADE_OF = "made_of"
"""What a night's note holds under this name: the digest of what it was made of."""
SKIPPED_STATE = "Skipped"
"""Name of the Prefect state, of type Completed: nothing is wrong and nothing was due."""
log = logging.getLogger("nightschool")


@dataclass(frozen=True, kw_only=True)
class SkippedNight:
    """A night that did nothing, and why."""

    recipe: str
    reason: str
    standing: str = ""
    """What the registry says now."""

    @property
    def sentence(self) -> str:
        return one_line(f"Skipped: {self.reason}", MESSAGE_LIMIT)

    def as_text(self) -> str:
        """For a terminal."""
        lines = [f"Night {self.recipe}: skipped", f"  {self.reason}"]
        if self.standing:
            lines.append(f"  {self.standing}")
        return "\n".join([
            *lines,
            f"  talk with it       python -m flows chat {self.recipe}",
            f"  run it once more   python -m flows {self.recipe} --again",
        ])  # fmt: skip


class NightSkipped(Exception):
    """Nothing is due. Ends the opening of a night."""

    def __init__(self, night: SkippedNight) -> None:
        super().__init__(night.sentence)
        self.night = night


def as_skipped_state(skipped: SkippedNight) -> SkippedNight:
    """The night as a flow returns it: a state of its own name for Prefect, the night itself for the caller."""
    return cast(SkippedNight, Completed(name=SKIPPED_STATE, message=skipped.sentence, data=skipped))


def require_something_new(journal: Journal, store: Store, recipe: Recipe, key: str, made_of: str) -> None:
    """Raise NightSkipped, noted in the journal, if a night had the same rows, recipe and training code and came to its
    end.

    key: of tonight; made_of: digest of what decides its model. Where a model of it waits for tonight's registry, the
    night is not skipped, so that it is registered.
    """
    notes = night_notes(journal.home, recipe.name)
    label = store_label(journal.home, store.tracking_uri)
    if any(note.waits_at(label) for note in notes):
        return
    same = (note for note in notes if note.content.get(MADE_OF) == made_of and note.has_ended)
    if done := [note for note in same if whole(journal.home, note.stages)]:
        night = skipped(store.registry(recipe.name), max(done, key=lambda note: note.started))
        note_skipped(journal, recipe, night, key)
        raise NightSkipped(night)


def stale_night(recipe: Recipe) -> SkippedNight | None:
    """The night that the schedule asks for too late, as a newer one is due; None for one that is to run."""
    if reason := why_stale():
        night = SkippedNight(recipe=recipe.name, reason=reason)
        note_skipped(Journal(Settings.load().home), recipe, night, "")
        return night
    return None


def note_skipped(journal: Journal, recipe: Recipe, night: SkippedNight, key: str) -> None:
    """A line in the journal and in the log, and whoever waits for nights hears that one has ended."""
    at = now()
    outcome = NightOutcome(
        recipe=night.recipe, key=key[:KEY_CHARACTERS], day=at[:10], at=at, ending="skipped", reason=night.reason
    )
    note_end(journal, outcome)
    log.info("%s", night.sentence)
    sound_alarms(journal, outcome, recipe.alarms)


def whole(home: Path, stages: Mapping[str, str]) -> bool:
    """Whether all that a night made is still there."""
    return all(StageRecord.read(home / "data" / folder) for folder in stages.values())


def skipped(registry: Registry, note: Note) -> SkippedNight:
    """A night that would repeat the one of the note."""
    day, version = note.started[:10], note.version
    made = f", which made version {version}" if version else ""
    reason = f"no row is new, and recipe and code are those of the night {registry.recipe} {day}{made}"
    try:
        standing = standing_now(registry, version) if version else ""
    except StoreAway as away:
        standing = f"who is champion now is not known: {away}"
    return SkippedNight(recipe=registry.recipe, reason=reason, standing=standing)
