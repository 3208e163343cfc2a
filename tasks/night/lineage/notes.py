"""The note of a night in its home: its run and what it is made of, from its opening on; then what it made."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from model.files import write_json
from tasks.home.journal import KEY_CHARACTERS

NIGHT = "night"
START = "start"
"""What a note holds under this name: what the night's pretraining began with."""
STAGES_DONE, ENDED, WAITING = "stages", "ended", "waiting"
"""What a note holds under these names: once its stages are done, their folders by name; once the night is told of and
the trunk moved, that it has ended; while its model waits for the registry, the recipe as plain values and why."""


def note_path(home: Path, recipe: str, key: str, kind: str = NIGHT) -> Path:
    """Where a night notes its run and outcome. Trials have a folder of their own: they are no nights to ask about."""
    name = f"{recipe}@{key[:KEY_CHARACTERS]}.json"
    return home / "nights" / name if kind == NIGHT else home / "trials" / f"{kind}-{name}"


def earlier_notes(home: Path, recipe: str) -> Iterator[Path]:
    """Notes of the recipe's nights."""
    pattern = note_path(home, glob.escape(recipe), "*")
    return pattern.parent.glob(pattern.name)


def read_note(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def add_to_note(path: Path, content: Mapping[str, Any]) -> None:
    """Replace some of what a note holds; it is not written if it says the same already."""
    note = read_note(path)
    if any(note.get(name) != value for name, value in content.items()):
        write_json(path, {**note, **content})


def concluded_notes(home: Path, recipe: str) -> Iterator[dict[str, Any]]:
    """What the notes of nights hold whose stages are done, in no order."""
    return (note for path in sorted(earlier_notes(home, recipe)) if STAGES_DONE in (note := read_note(path)))


def has_ended(home: Path, recipe: str) -> bool:
    """Whether any night of the recipe has."""
    return any(ENDED in note for note in concluded_notes(home, recipe))


def note_of_pretrained(home: Path, recipe: str, folder: str) -> dict[str, Any]:
    """The note of the newest night that has this folder of the pretrain stage; empty if none says so."""
    found = (note for note in concluded_notes(home, recipe) if folder in note[STAGES_DONE].values())
    return max(found, key=lambda note: str(note.get("identity", {}).get("started", "")), default={})
