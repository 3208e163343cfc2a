"""Which stage folders of a home are needed, and by whom. Nothing is changed here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from model.files import write_json
from tasks.home.contents.packed import digest_of_kind
from tasks.home.journal import Journal
from tasks.home.notes import Note
from tasks.home.records import StageRecord
from tasks.home.stage_table import TRAINING_STAGES
from tasks.home.trunk import TRUNKS

PARTIAL = ".partial"
BASE = "base"
"""Input of a stage that grew: what it grew from, whose rows it has itself."""
KINDS = tuple(dict.fromkeys(entry.kind for entry in TRAINING_STAGES))
Aliases = Mapping[str, Mapping[int, str]]
"""By recipe the registered versions that may not go, and what they are: `champion`, `rolled back by a person`."""


@dataclass(frozen=True)
class HomeFolders:
    """The stage folders of a home as they are now."""

    home: Path

    @property
    def data(self) -> Path:
        return self.home / "data"

    @cached_property
    def records(self) -> dict[str, StageRecord]:
        """Those of finished stages, by name of the folder."""
        found = ((path.name, StageRecord.read(path)) for path in self._all() if not path.name.endswith(PARTIAL))
        return {name: record for name, record in found if record}

    @cached_property
    def others(self) -> list[str]:
        """Names of all other folders: working ones, and what has no valid record."""
        return sorted(path.name for path in self._all() if path.name not in self.records)

    @cached_property
    def by_digest(self) -> dict[str, list[str]]:
        """Folders by each digest that a later stage may name them by."""
        found: dict[str, list[str]] = {}
        for name, record in self.records.items():
            kinds = [digest_of_kind(record, kind) for kind in KINDS] if record.stage == "tokens" else []
            for digest in {record.digest, *kinds}:
                found.setdefault(digest, []).append(name)
        return found

    def _all(self) -> Iterator[Path]:
        return (path for path in sorted(self.data.glob("*@*")) if path.is_dir())

    def made_from(self, name: str) -> Iterator[str]:
        """The folders that a finished stage was made from: of each of its inputs the newest that is there.

        What it grew from is left out, and an earlier state of the same stage that it went on from: it needs neither.
        """
        record = self.records[name]
        for called, digest in record.inputs.items():
            there = [n for n in self.by_digest.get(digest, ()) if self.records[n].stage != record.stage]
            if called != BASE and there:
                yield max(there, key=lambda n: ((self.data / n).stat().st_mtime, n))


def words_in(content: object) -> Iterator[str]:
    """Every text in plain values."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        yield from (word for value in content.values() for word in words_in(value))
    elif isinstance(content, list):
        yield from (word for value in content for word in words_in(value))


def named_by_hints(home: Path) -> Iterator[tuple[str, str]]:
    """Folders that the home's own hints name, with what they are: the newest data of each recipe, and its trunk."""
    for place, what in (("newest", "the newest data of"), (TRUNKS, "the trunk of")):
        for path in sorted((home / place).glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                continue  # whoever reads it starts anew
            yield from ((Path(word).name, f"{what} {path.stem}") for word in words_in(content))


def of_versions(folders: HomeFolders, notes: Iterable[Note], aliases: Aliases) -> Iterator[tuple[str, str]]:
    """Folders of registered versions that may not go: those that the note of the version's night names, those whose
    register stage made it, and those whose weights were taken over from an earlier registry."""
    adopted = [e for e in Journal(folders.home).entries() if e.get("event") == "adopted"]
    for recipe, versions in aliases.items():
        for note in notes:
            what = versions.get(note.version) if note.recipe == recipe else None
            yield from ((name, f"{what} of {recipe}") for name in note.stages.values() if what)
        digests = {str(e.get("digest")): int(e["version"]) for e in adopted if e.get("recipe") == recipe}
        for name, record in folders.records.items():
            made = record.counts.get("version", 0) if record.stage == "register" else digests.get(record.digest, 0)
            own = record.stage != "register" or dict(record.config or {}).get("recipe", recipe) == recipe
            if own and made in versions:
                yield name, f"{versions[made]} of {recipe}"


def needed(folders: HomeFolders, notes: list[Note], in_full: Iterable[Note], aliases: Aliases) -> dict[str, str]:
    """Names of the folders that must stay, each with why.

    notes: of all nights; `in_full`: those of nights that are kept whatever their models are.
    """
    roots = [
        *of_versions(folders, notes, aliases),
        *((name, f"the model of {note.name} waits to be judged")
          for note in notes if note.waits for name in note.stages.values()),
        *named_by_hints(folders.home),
        *((name, f"of the night {note.name}") for note in in_full for name in note.stages.values()),
    ]  # fmt: skip
    found: dict[str, str] = {}
    waiting = [(name, why) for name, why in reversed(roots) if name in folders.records]
    while waiting:
        name, why = waiting.pop()
        if name not in found:
            found[name] = why
            waiting += [(made, f"{why}, by {name}" if ", by " not in why else why) for made in folders.made_from(name)]
    return found


def note_growth(journal: Journal, folders: HomeFolders) -> None:
    """Note of every finished stage what it grew from, past folders that are gone: written before any more go."""
    there = {record.digest for record in folders.records.values()}
    grown = journal.grown()

    def nearest(digest: str) -> str:
        seen = set()
        while digest and digest not in there and digest not in seen:
            seen.add(digest)
            digest = grown.get(digest, "")
        return digest if digest in there else ""

    bases = {r.digest: nearest(journal.base_of(r)) for r in folders.records.values() if r.inputs.get(BASE)}
    if bases != grown:
        write_json(journal.grown_path, bases)
