"""A model's lineage for people: the nights that its weights went through, since they began from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.errors import NightStopped
from tasks.home.notes import LINEAGE, night_notes, note_of_version
from tasks.pages.tables import SENTENCE_CHARACTERS, Cell, Column, Table
from tasks.pages.text import plural
from tasks.questions.history import History, listed
from tasks.questions.lineage import CHAMPION, champion_version

CHANGES_SHOWN = 3


def lineage_lines(home: Path, wanted: str, recipe: str | None = None) -> list[str]:
    """The chain of a registered version, or of the champion, oldest night first, as lines of text.

    wanted: a version's number, or `champion`; recipe: whose, None for the one that ran last. Raises NightStopped for a
    version that no night of this home made.
    """
    history = History(home)
    name = history.recipe(recipe)
    version, remark = champion_version(history, name) if wanted == CHAMPION else (number(wanted), "")
    note = told_of_version(home, name, version)
    chain = [dict(entry) for entry in note.get(LINEAGE, [])]
    if not chain:
        raise NightStopped(f"version {version} of {name} was made by an earlier release, which noted no lineage")
    chain[-1] |= {"version": version, "bits_per_byte": note.get("bits_per_byte")}
    called = (
        f"{CHAMPION} of {name}, version {version}{remark}" if wanted == CHAMPION else f"version {version} of {name}"
    )
    table = Table(
        [
            Column("night"), Column("key"), Column("version", "number"), Column("bits per byte", "number"),
            Column("data"), Column("code"), Column("began", max_characters=SENTENCE_CHARACTERS),
        ],
        [row_of(entry, before) for entry, before in zip(chain, [{}, *chain], strict=False)],
    )  # fmt: skip
    return [f"{called}: {plural(len(chain), 'night')} since it began from scratch", *table.as_text().splitlines()]


def number(text: str) -> int:
    if not text.isdecimal():
        raise NightStopped(f"{text!r:.80} is no version: give its number, or {CHAMPION}")
    return int(text)


def told_of_version(home: Path, recipe: str, version: int) -> Mapping[str, Any]:
    """What the note of the night holds that made a version. Raises NightStopped if there is none."""
    if note := note_of_version(home, recipe, version):
        return note.content
    known = sorted({note.version for note in night_notes(home, recipe) if note.version})
    raise NightStopped(
        f"no night in {home} made version {version} of {recipe}; it made {listed([str(v) for v in known]) or 'none'}"
    )


def row_of(entry: Mapping[str, Any], before: Mapping[str, Any]) -> list[Cell]:
    """A night of the chain, beside the one that it went on from."""
    changes = [f"{name}={value}" for name, value in entry["changes"].items()]
    more = len(changes) - CHANGES_SHOWN
    told = ", ".join([*changes[:CHANGES_SHOWN], *([f"{more} more"] if more > 0 else [])])
    bpb = entry.get("bits_per_byte")
    return [
        entry["day"], entry["night"], str(entry.get("version") or "–"), "–" if bpb is None else f"{bpb:.4f}",
        same_or_new(entry, before, "data"), same_or_new(entry, before, "code"),
        entry["began"] + (f"; with {told}" if told else ""),
    ]  # fmt: skip


def same_or_new(entry: Mapping[str, Any], before: Mapping[str, Any], name: str) -> str:
    """The beginning of a digest, or that it is the one of the night before."""
    return "same" if before.get(name) == entry[name] else str(entry[name])[:8]
