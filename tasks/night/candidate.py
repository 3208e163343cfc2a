"""A model that waits for a decision: trained and evaluated on a night whose model registry did not answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from model.files import write_json
from tasks.evaluation.twin import TWIN, TrainedTwin
from tasks.home.records import StageRecord, stage_name
from tasks.home.stage_table import STAGES, TRAINING_STAGES
from tasks.recipes.recipe import recipe_from
from tasks.sources.resolve import Resolved
from tasks.stage import Night

WAITING = "waiting"
"""What a night's note holds under this name: its recipe, as plain values, and why its model waits."""
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
        return self.record_of(TRAINING_STAGES[-1].name)

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
    """Candidates of other nights in this home, oldest first. One whose folders are gone is given up, with a message."""
    notes = sorted((night.home / "nights").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in notes:
        note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if WAITING not in note or note["key"] == night.key:
            continue
        names = [entry.name for entry in STAGES if entry.name in note["stages"]]
        records = {name: StageRecord.read(night.home / "data" / folder) for name, folder in note["stages"].items()}
        if gone := [note["stages"][name] for name in names if records[name] is None]:
            log.warning("%s waited for the model registry and is not registered: %s is gone", path.stem, gone[0])
            write_json(path, {name: value for name, value in note.items() if name != WAITING})
            continue
        recipe = recipe_from(note[WAITING]["recipe"])
        own = [record for name in names if (record := records[name])]
        twins = [record for name in names if (record := records.get(stage_name(name, TWIN)))]
        yield Candidate(
            replace(night, recipe=recipe, key=note["key"], run_id=note["run_id"], raw=Resolved(())), own,
            TrainedTwin(twins, note[WAITING]["twin_diverged"]) if recipe.twin else None,
        )  # fmt: skip
