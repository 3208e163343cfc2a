"""A model that waits for a decision: trained and evaluated on a night whose model registry did not answer."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.files import write_json
from tasks.errors import NightStopped
from tasks.evaluation.twin import TWIN, TrainedTwin
from tasks.home.notes import STAGES_DONE, START, WAITING, night_notes, read_note, store_label
from tasks.home.records import StageRecord, stage_name
from tasks.home.stage_table import STAGES, TRAINING_STAGES
from tasks.home.trunk import start_from
from tasks.night.lineage.naming import day_of
from tasks.recipes.recipe import recipe_from
from tasks.sources.resolve import Resolved
from tasks.stage import Night

NEEDED = ("split", "tokens", "inspect", "evaluate")
"""Stages whose records a decision takes, beside that of the model."""
log = logging.getLogger("nightschool")


@dataclass(frozen=True)
class Candidate:
    """A night's model, and what it is judged by."""

    night: Night
    records: Sequence[StageRecord]
    """Of the night's own stages from validate to evaluate."""
    twin: TrainedTwin | None = None

    def record_of(self, stage: str) -> StageRecord:
        return next(record for record in self.records if record.stage == stage)

    @property
    def model(self) -> StageRecord:
        """Of the last stage that trained; a stage that came into the table since has no say."""
        trained = {record.stage: record for record in self.records}
        return [trained[entry.name] for entry in TRAINING_STAGES if entry.name in trained][-1]

    @property
    def rows(self) -> StageRecord:
        return self.record_of("split")

    @property
    def tokens(self) -> StageRecord:
        return self.record_of("tokens")

    @property
    def data(self) -> StageRecord:
        """The data report."""
        return self.record_of("inspect")

    @property
    def scored(self) -> StageRecord:
        return self.record_of("evaluate")


def waiting_candidates(night: Night) -> Iterator[Candidate]:
    """Candidates of other nights in this home, oldest first. One that cannot be read any more is given up."""
    for noted in reversed(night_notes(night.home)):
        path, note = noted.path, noted.content
        if not noted.waits or note["key"] == night.key:
            continue
        if not noted.waits_at(store_label(night.home, night.tracking_uri)):
            place = note[WAITING]["store"] or "the home"
            log.info("%s waits for the model registry at %s, which is not tonight's", path.stem, place)
            continue
        earlier = replace(
            night, key=note["key"], run_id=note["run_id"], raw=Resolved(()), day=day_of(note), opened_at=0.0
        )
        if START in note:
            earlier = replace(earlier, start=start_from(note[START]))
        try:
            candidate = candidate_of(earlier, note)
        except NightStopped as stop:
            give_up(path, stop)
        else:
            yield candidate


def candidate_of(night: Night, note: Mapping[str, Any]) -> Candidate:
    """The candidate of a night's note. Raises NightStopped if a folder is gone or the recipe is not valid any more."""
    folders = note[STAGES_DONE]
    names = [entry.name for entry in STAGES if entry.name in folders]
    records = {name: StageRecord.read(night.home / "data" / folder) for name, folder in folders.items()}
    if gone := [folders[name] for name in names if records[name] is None]:
        raise NightStopped(f"{gone[0]} is not in {night.home / 'data'} any more")
    trained = [entry.name for entry in TRAINING_STAGES if entry.name in names]
    if missing := [name for name in NEEDED if name not in names] + ([] if trained else ["a trained model"]):
        raise NightStopped(f"the night's note names no stage for {', '.join(missing)}")
    recipe = recipe_from(note[WAITING]["recipe"])
    own = [record for name in names if (record := records[name])]
    twins = [record for name in names if (record := records.get(stage_name(name, TWIN)))]
    twin = TrainedTwin(twins, note[WAITING]["twin_diverged"]) if recipe.twin else None
    return Candidate(replace(night, recipe=recipe), own, twin)


def give_up(note_path: Path, reason: NightStopped) -> None:
    """A model that can never be registered must not end every night from now on: it waits no longer, with a word."""
    log.warning("%s waited for the model registry and is not registered: %s", note_path.stem, reason)
    note = read_note(note_path)
    write_json(note_path, {name: value for name, value in note.items() if name != WAITING})
