"""A home in which one night was trained to its end, and one that goes on from its trunk was broken off."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.data.ours import UntrackedNight, run_id_of
from model.training.batches import Batch, batch_of_rows
from tasks.errors import Interrupted
from tasks.home.records import StageRecord
from tasks.home.trunk import FROM_SCRATCH, Start
from tasks.night.conclusion import note_made
from tasks.recipes.recipe import recipe_from
from tasks.sources.resolve import Resolved
from tasks.stages.pretrain import pretrain
from tasks.stages.sft import sft
from tests.lived_home import prepare
from tests.tasks.training_runs import at_step, interrupt
from tests.tiny_recipe import tiny_content, write_sources

FIRST, SECOND = "tiny@first", "tiny@second"
STEPS, SFT_STEPS, BATCH_ROWS = 12, 8, 4
BRANCH, BROKEN_AT = 7, 10
"""Steps of pretraining after which the first night keeps its trunk, and after which the second is broken off."""
TEXT_SHARE = 0.375
"""Of the rows of SFT."""
ROWS_OF_FIRST_NIGHT = 300
"""Of raw data of each kind; the second night has more."""


@dataclass(frozen=True)
class TrainedHome:
    """A night that ended, and one that goes on from its trunk and was broken off in its pretraining."""

    home: Path
    raw: dict[str, Path]
    packed: tuple[StageRecord, StageRecord]
    """Of each night."""
    read: dict[tuple[str, str], list[bytes]]
    """By night and stage the ids of every batch that training read, as int64, in order."""


def note(home: Path, name: str) -> Path:
    path = home / "nights" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"run_id": run_id_of(name), "name": f"{name} as people call it"}))
    return path


def train_two_nights(folder: Path, patch: pytest.MonkeyPatch) -> TrainedHome:
    """patch: keeps what it changes until the nights are over."""
    home, raw, read = folder / "home", write_sources(folder / "raw"), dict[tuple[str, str], list[bytes]]()
    content = tiny_content(raw)
    content["sft"] |= {"replay_share": TEXT_SHARE}
    recipe = recipe_from(content)
    whole = {path: path.read_bytes().splitlines(keepends=True) for path in raw.values()}
    place = [("", "")]

    def noted(rows: Any, numbers: np.ndarray) -> Batch:
        batch = batch_of_rows(rows, numbers)
        read.setdefault(place[0], []).append(batch.ids_BT.numpy().tobytes())
        return batch

    def night(name: str, start: Start) -> UntrackedNight:
        return UntrackedNight(recipe, name, home, "", run_id_of(name), 0, Resolved(()), start=start, name=name)

    patch.setattr("model.training.batches.batch_of_rows", noted)
    for path, lines in whole.items():
        path.write_bytes(b"".join(lines[:ROWS_OF_FIRST_NIGHT]))
    records = prepare(home, recipe)
    place[0] = (FIRST, "pretrain")
    first = pretrain.fn(night(FIRST, FROM_SCRATCH), records[3])
    place[0] = (FIRST, "sft")
    tuned = sft.fn(night(FIRST, FROM_SCRATCH), records[3], first)
    note_made(note(home, FIRST), [*records, first, tuned], {"version": 1, "promoted": False}, None)

    for name, path in raw.items():
        path.with_name(f"{name}-2.jsonl").write_bytes(b"".join(whole[path][ROWS_OF_FIRST_NIGHT:]))
    sources = [source | {"location": str(folder / "raw" / f"{raw[kind].stem}*.jsonl")}
               for source, kind in zip(content["sources"], ("text", "chat"), strict=True)]  # fmt: skip
    recipe = replace(recipe, sources=recipe_from(content | {"sources": sources}).sources)
    packed = prepare(home, recipe)[3]
    note(home, SECOND)
    place[0] = (SECOND, "pretrain")
    start = Start(how="trunk", parent=first.path.name, checkpoint="trunk", reason="goes on")
    with pytest.MonkeyPatch.context() as once, pytest.raises(Interrupted):
        at_step(BROKEN_AT, interrupt, once)
        pretrain.fn(night(SECOND, start), packed)
    return TrainedHome(home, raw, (records[3], packed), read)
