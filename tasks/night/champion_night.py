"""The night whose model a decision compared with: what is still known of it in the home."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.home.journal import BY_HAND, DECIDED, Journal
from tasks.home.notes import note_of_version
from tasks.home.records import StageRecord
from tasks.home.stage_table import TRAINING_STAGES


@dataclass(frozen=True)
class ChampionNight:
    """The champion's version, and what is there of the night that made it."""

    version: int
    note: Mapping[str, Any]
    """The night's own note; empty if it is gone."""
    records: Mapping[str, StageRecord]
    """By stage, of those whose folders are still there."""
    scored: StageRecord | None
    """Its evaluation on the same documents as the challenger's."""


def champion_night(
    journal: Journal, recipe: str, version: int | None, scored: StageRecord
) -> ChampionNight | None:  # fmt: skip
    """The champion that the decision on a `version` met, by the journal; None if there was none.

    version: None for a decision that is still to come.
    scored: the evaluation of the version's model.
    """
    champion = champion_before(journal, recipe, version)
    if champion is None:
        return None
    note = note_of_version(journal.home, recipe, champion)
    found = [StageRecord.read(journal.home / "data" / folder) for folder in (note.stages.values() if note else ())]
    records = {record.stage: record for record in found if record and not record.branch}
    models = [records[entry.name].digest for entry in TRAINING_STAGES if entry.name in records]
    told = note.content if note else {}
    return ChampionNight(champion, told, records, same_documents(journal.home, scored, models[-1]) if models else None)


def champion_before(journal: Journal, recipe: str, version: int | None) -> int | None:
    """The version that was champion when one was decided on, as its decision notes it: a person may have chosen it,
    here or in the registry itself. Those of an earlier release do not; there it is the one promoted last."""
    champion = None
    for entry in journal.entries():
        if entry.get("recipe") != recipe or entry.get("version") is None:
            continue
        if entry.get("event") == DECIDED and entry["version"] == version:
            return entry.get("champion", champion)
        if entry.get("event") == BY_HAND or entry.get("promoted"):
            champion = int(entry["version"])
    return champion


def same_documents(home: Path, scored: StageRecord, model: str) -> StageRecord | None:
    """The evaluation of another model on the documents of `scored`, if it is there."""
    wanted = {**scored.inputs, "model": model}
    for folder in (home / "data").glob(f"{scored.stage}@*"):
        record = StageRecord.read(folder)
        if record and dict(record.inputs) == wanted and record.config == scored.config:
            return record
    return None
