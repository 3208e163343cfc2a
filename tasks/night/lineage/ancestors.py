"""Where a model comes from: the nights that its weights went through, oldest first, as each night's note holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.home.journal import KEY_CHARACTERS
from tasks.home.notes import LINEAGE, note_of_folder, note_of_version, note_path, read_note
from tasks.home.records import StageRecord
from tasks.home.trunk import Start
from tasks.night.lineage.naming import Identity, day_of, differences
from tasks.stage import Night


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """A night that a model's weights went through."""

    night: str
    """The beginning of its key."""
    day: str
    run_id: str
    began: str
    """What its pretraining began with, in words."""
    from_night: str = ""
    """The night whose weights those were; empty from scratch."""
    version: int | None = None
    """What it registered."""
    bits_per_byte: float | None = None
    data: str
    """Digest of its raw rows."""
    tokenizer: str
    """Digest of its tokenizer's file."""
    code: str
    """Digest of the code of all stages."""
    changes: dict[str, str] = field(default_factory=dict)
    """Settings of its recipe that differ from those of the night it went on from, with their values."""


def lineage_of(night: Night, start: Start, tokens: StageRecord) -> list[dict[str, Any]]:
    """The chain of a night that begins with `start`: that of the night it goes on from, and tonight's entry."""
    identity = Identity(**read_note(note_path(night.home, night.recipe.name, night.key))["identity"])
    parent_note = note_of_folder(night.home, night.recipe.name, start.parent) if start.parent else None
    before = parent_note.content if parent_note else {}
    earlier = [dict(entry) for entry in before.get(LINEAGE, [])]
    if earlier:
        earlier[-1] |= {"version": before.get("version"), "bits_per_byte": before.get("bits_per_byte")}
    parent = Identity(**before["identity"]) if "identity" in before else None
    entry = Ancestor(
        night=night.key[:KEY_CHARACTERS], day=identity.day, run_id=night.run_id, began=start.reason,
        from_night=str(before.get("key", ""))[:KEY_CHARACTERS], data=identity.data, code=identity.code,
        tokenizer=tokens.files["tokenizer.json"],
        changes=differences(identity.params, parent.params) if parent else {},
    )  # fmt: skip
    return [*earlier, asdict(entry)]


def began_since(home: Path, recipe: str, lineage: Sequence[Mapping[str, Any]], version: int) -> str:
    """The day on which a training began from scratch, if that was after a version was made; else empty.

    lineage: of the training's newest night. Days are compared: what another training made on the day is before it.
    """
    note = note_of_version(home, recipe, version)
    if note is None or not lineage:
        return ""
    mine = any(entry["night"] == str(note.content.get("key", ""))[:KEY_CHARACTERS] for entry in lineage)
    first = str(lineage[0]["day"])
    return "" if mine or day_of(note.content) > first else first
