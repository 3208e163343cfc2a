"""The note of a night in its home: its run and what it is made of, from its opening on; then what it made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.files import write_json
from tasks.errors import without_password
from tasks.home.journal import KEY_CHARACTERS

NIGHT = "night"
START, LINEAGE = "start", "lineage"
"""What a note holds under these names: what the night's pretraining began with, and the nights that its weights went
through, oldest first."""
STAGES_DONE, ENDED, WAITING = "stages", "ended", "waiting"
"""What a note holds under these names: once its stages are done, their folders by name; once the night is told of and
the trunk moved, that it has ended; while its model waits for the registry, the recipe as plain values and why."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """A night's note, or a trial's. One that is damaged names nothing and counts as one of its time."""

    path: Path
    recipe: str
    """Of a trial with its kind before it."""
    content: Mapping[str, Any]
    changed: float
    """Seconds since 1970."""

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def stages(self) -> Mapping[str, str]:
        """Folders of its stages by name; nothing before they are done."""
        return {str(stage): str(folder) for stage, folder in dict(self.content.get(STAGES_DONE, {})).items()}

    @property
    def version(self) -> int:
        """What the night registered; 0 if it did not."""
        return int(self.content.get("version") or 0)

    @property
    def waits(self) -> bool:
        """Whether its model waits to be judged."""
        return WAITING in self.content

    def waits_at(self, label: str) -> bool:
        """Whether it waits for the registry of this label, see `store_label`. Older notes do not say for which."""
        return self.waits and dict(self.content[WAITING]).get("store", label) == label

    @property
    def has_ended(self) -> bool:
        return bool(self.content.get(ENDED))

    @property
    def run_id(self) -> str:
        return str(self.content.get("run_id", ""))

    @property
    def started(self) -> str:
        """When the night was opened first, as ISO 8601 has it; empty if the note does not say."""
        return str(dict(self.content.get("identity", {})).get("started", ""))


def note_path(home: Path, recipe: str, key: str, kind: str = NIGHT) -> Path:
    """Where a night notes its run and outcome. Trials have a folder of their own: they are no nights to ask about."""
    name = f"{recipe}@{key[:KEY_CHARACTERS]}.json"
    return home / "nights" / name if kind == NIGHT else home / "trials" / f"{kind}-{name}"


def store_label(home: Path, tracking_uri: str) -> str:
    """Which tracking store a night reports to, for its note; empty for that of its home, wherever the home lies."""
    return "" if tracking_uri.startswith(f"sqlite:///{home}/") else without_password(tracking_uri)


def read_note(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def add_to_note(path: Path, content: Mapping[str, Any]) -> None:
    """Replace some of what a note holds; it is not written if it says the same already."""
    note = read_note(path)
    if any(note.get(name) != value for name, value in content.items()):
        write_json(path, {**note, **content})


def notes_in(folder: Path) -> list[Note]:
    """Notes of all recipes' nights or trials, by when they changed, newest first."""
    found = []
    for path in folder.glob("*@*.json"):
        try:
            content = read_note(path)
        except (ValueError, TypeError):
            content = {}
        recipe, changed = path.stem.rpartition("@")[0], path.stat().st_mtime
        found.append(Note(path=path, recipe=recipe, content=content, changed=changed))
    return sorted(found, key=lambda note: (note.changed, note.name), reverse=True)


def night_notes(home: Path, recipe: str | None = None) -> list[Note]:
    """Notes of the nights of one recipe, or of all, newest first."""
    return [note for note in notes_in(home / "nights") if recipe in (None, note.recipe)]


def note_of_version(home: Path, recipe: str, version: int) -> Note | None:
    """The note of the night that made a registered version, the newest of several; None if there is none."""
    return next((note for note in night_notes(home, recipe) if note.version == version), None)


def note_of_folder(home: Path, recipe: str, folder: str) -> Note | None:
    """The note of the night that has a stage's folder, of several that which was opened last; None if there is none."""
    found = (note for note in night_notes(home, recipe) if folder in note.stages.values())
    return max(found, key=lambda note: note.started, default=None)
