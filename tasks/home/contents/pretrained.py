"""The folder of a training stage, as far as others ask what was read, and where its trunk is.

A stage that read text of another kind beside its own rows notes that in the same files in a folder `replayed`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.files import write_json
from model.tokens.order import Part, Reading, TrunkReplay
from model.tokens.packing import PackedTokens, ShardedTokens
from tasks.home.records import StageRecord

TRUNK = "trunk"
"""Folder of the checkpoint before the decay."""
READING, BEFORE, REPLAYED = "reading.json", "read-before.u4", "replayed"
ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Grown:
    """What a training stage's folder says of the training that grows from night to night."""

    branch_step: int | None
    """Steps before the decay, where the trunk is kept; None for a stage that keeps none."""
    nights: int = 1
    """That the weights have been through, this one included."""
    earlier_positions: int = 0
    """Packed rows that the weights had read before this stage, counted each time, of whatever data."""
    rows_digest: str
    """Of the packed rows, `digest_of_rows` of all."""
    tokenizer: str
    """Digest of its file."""


def write_reading(folder: Path, reading: Reading, grown: Grown) -> None:
    """Note how a stage read its rows."""
    _write(folder, reading, asdict(grown))


def write_replayed(folder: Path, reading: Reading, rows_digest: str) -> None:
    """Note in a folder of its own how a stage read text beside its rows; `rows_digest` is of the packed text."""
    _write(folder, reading, {"rows": rows_digest})


def _write(folder: Path, reading: Reading, more: dict[str, Any]) -> None:
    replay = reading.replay
    if replay is not None:
        replay.before.astype("<u4").tofile(folder / BEFORE)
    content = {
        "num_rows": reading.num_rows, "batch_rows": reading.batch_rows, "seed": reading.seed,
        "num_steps": reading.num_steps, **more, "part": reading.part and reading.part._asdict(),
        "replay": None if replay is None else {"share": replay.share, "salt": replay.salt},
    }  # fmt: skip
    write_json(folder / READING, content)


def read_noted(folder: Path) -> dict[str, Any]:
    """What `write_reading` noted; empty for a stage of an earlier release."""
    path = folder / READING
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def replayed_of(trained: StageRecord) -> tuple[Reading, str] | None:
    """What a finished stage read of text beside its rows, and the digest of that packed text; None if it did not."""
    folder = trained.path / REPLAYED
    noted = read_noted(folder)
    return (_as_noted(folder, noted, trained.counts["steps"]), noted["rows"]) if noted else None


def reading_of(trained: StageRecord, num_rows: int, steps: int | None = None) -> Reading:
    """What a finished training stage read; of its first `steps` steps alone, where they are given.

    num_rows: of the packed rows that it read, for a stage of an earlier release, which did not note it.
    """
    noted, config = read_noted(trained.path), trained.config["train"]
    num_steps = trained.counts["steps"] if steps is None else steps
    if not noted:
        return Reading(num_rows, config["batch_rows"], config["seed"], num_steps)
    return _as_noted(trained.path, noted, num_steps)


def _as_noted(folder: Path, noted: dict[str, Any], num_steps: int) -> Reading:
    replay, part = None, noted.get("part")
    if noted["replay"]:
        before = np.fromfile(folder / BEFORE, dtype="<u4")
        replay = TrunkReplay(before, noted["replay"]["share"], noted["replay"]["salt"])
    shared = Part(**part) if part else None
    return Reading(noted["num_rows"], noted["batch_rows"], noted["seed"], num_steps, replay, shared)


def digest_of_rows(tokens: ShardedTokens | PackedTokens, num_rows: int) -> str:
    """SHA-256 of the ids of the first `num_rows` packed rows, in order, however they lie in files."""
    digest, left = hashlib.sha256(), num_rows
    for shard in tokens.shards if isinstance(tokens, ShardedTokens) else (tokens,):
        for first in range(0, min(left, shard.num_rows), ROWS_AT_ONCE):
            last = min(first + ROWS_AT_ONCE, left, shard.num_rows)
            digest.update(np.ascontiguousarray(shard.input_ids[first:last]).data)
        left -= min(left, shard.num_rows)
    return digest.hexdigest()
