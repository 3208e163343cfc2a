"""From the locations of a recipe's sources to tonight's pieces of raw files on this machine."""

from __future__ import annotations

import glob
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from data.rows.piece import Piece
from tasks.errors import NightStopped
from tasks.recipes.stage_configs import HUB, SourceConfig
from tasks.sources.builtin import MAKERS, build_corpus
from tasks.sources.pieces import TABLES, FileCutter, RawFile, state_of
from tasks.sources.remote import bring_from_hub, bring_remote
from tasks.sources.tables import as_jsonl

BUILTIN = "builtin:"
PIECE_BYTES = 16 << 20
PIECES = "sources.json"
"""Of a home: the pieces of every file that it knows."""
REASONS_SHOWN, NAMES_SHOWN = 5, 4
DEEP = re.compile(r"(?:^|(?<=/))(?:\*\*(?:/|$))+")
"""Folders of any depth, in a glob."""


@dataclass(frozen=True)
class LocatedPiece:
    """A piece, its source, and where this machine has it."""

    piece: Piece
    source: SourceConfig
    path: Path
    """The raw file, or the jsonl that it was converted to."""

    @property
    def num_bytes(self) -> int:
        """Of what a scan reads."""
        return (self.path.stat().st_size if self.piece.end is None else self.piece.end) - self.piece.start


@dataclass(frozen=True)
class Deferred:
    """A file, or the end of one, that is not for tonight."""

    label: str
    reason: str


@dataclass(frozen=True)
class Resolved:
    """Tonight's raw data."""

    pieces: tuple[LocatedPiece, ...]
    deferred: tuple[Deferred, ...] = ()
    """Still being written: the next night will see them."""
    unreadable: tuple[Deferred, ...] = ()
    repeated: tuple[Deferred, ...] = ()
    """Other paths to a file of the same source, which is read once."""

    @property
    def set_aside(self) -> list[tuple[str, str]]:
        """(file, reason) of everything that is not for tonight."""
        return [(item.label, item.reason) for item in (*self.deferred, *self.unreadable, *self.repeated)]


def resolve(
    sources: Sequence[SourceConfig], home: Path, known: Sequence[Piece] = (), settle_seconds: float = 0.0,
    clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep,
) -> Resolved:  # fmt: skip
    """Tonight's pieces of all `sources`, in a fixed order, and what is not for tonight.

    The `known` pieces of a file, those of the last validation, are kept if all of them are unchanged, and what follows
    them is cut anew. Remote files, the built-in corpus and converted tables are kept under `home`. A file that changed
    less than `settle_seconds` ago by `clock` (seconds since 1970) is looked at again after `sleep`ing for the rest of
    them. Raises NightStopped for a source of which no piece is left.
    """
    files = [(source, file) for source in sources for file in files_of(source, home)]
    files, repeated = read_once(files)
    moving = moving_files([file for _, file in files if not file.is_ours], settle_seconds, clock, sleep)
    cutter = FileCutter(home / PIECES, PIECE_BYTES, clock)
    known_of = defaultdict(list)
    for piece in known:
        known_of[piece.source, piece.label].append(piece)
    pieces: list[LocatedPiece] = []
    deferred, unreadable = [], []
    for source, file in files:
        try:
            if not is_utf8(str(file.path)):
                raise ValueError("its path is no UTF-8; rename it")
            cut_file = cutter.cut(file, known_of[file.source, file.label], file.path in moving)
            path = as_jsonl(file, cut_file.pieces, home / "downloads")
        except (OSError, ValueError, pa.ArrowException) as error:
            unreadable.append(Deferred(file.label, why_unreadable(file.path, error)))
            continue
        pieces += [LocatedPiece(piece, source, path) for piece in cut_file.pieces]
        if cut_file.deferred:
            deferred.append(Deferred(file.label, cut_file.deferred))
    cutter.save()
    resolved = Resolved(tuple(pieces), tuple(deferred), tuple(unreadable), repeated)
    for source in sources:
        stop_if_nothing_is_left(source, resolved)
    return resolved


def why_unreadable(path: Path, error: Exception) -> str:
    """Why a file cannot be read, and what helps, on one line."""
    words = " ".join((getattr(error, "strerror", None) or str(error)).split())
    if path.is_dir():
        return f"{words}; name its files, as in {path.name}/*.jsonl"
    if path.suffix in TABLES and path.is_file() and not isinstance(error, PermissionError):
        return (
            f"it is cut off, or no {path.suffix[1:]} file ({words[:120]}); bring it anew, or name it after what it is"
        )
    return words[:200]


def stop_if_nothing_is_left(source: SourceConfig, resolved: Resolved) -> None:
    if any(located.source.name == source.name for located in resolved.pieces):
        return
    reasons = [f"{label}: {reason}" for label, reason in resolved.set_aside if label.startswith(f"{source.name}/")]
    more = [f"and {len(reasons) - REASONS_SHOWN} more"] if len(reasons) > REASONS_SHOWN else []
    shown = "\n  ".join([*reasons[:REASONS_SHOWN], *more])
    raise NightStopped(f"source {source.name}: nothing of {source.location} is left for tonight\n  {shown}")


def files_of(source: SourceConfig, home: Path) -> list[RawFile]:
    """Files of one source, those that are remote brought here. Raises NightStopped if there is none."""
    located = locate(source, home)
    if not located:
        raise NightStopped(f"source {source.name}: {nothing_found(source.location)}")
    is_ours = source.location.startswith((BUILTIN, HUB)) or "://" in source.location
    ends = shortest_ends([origin for origin, _ in located])
    return [RawFile(source.name, f"{source.name}/{shown(ends[origin])}", path, is_ours) for origin, path in located]


def nothing_found(location: str) -> str:
    """That there is no file at a location, and what is where one was looked for."""
    if "://" in location:
        return f"nothing found at {location}; correct the address"
    path = Path(location).expanduser().absolute()
    folder = next(above for above in path.parents if not glob.has_magic(str(above)) and above.is_dir())
    with suppress(OSError):
        names = sorted(shown(entry.name) for entry in os.scandir(folder) if not entry.name.startswith("."))
        there = f"holds {', '.join(names[:NAMES_SHOWN])}" if names else "is empty"
        more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
        return f"nothing found at {location}; {folder} {there}{more}; correct the location, or bring the files"
    return f"nothing found at {location}; {folder} cannot be listed; correct the location"


def is_utf8(text: str) -> bool:
    return shown(text) == text


def shown(path: str) -> str:
    """A path as text; bytes of a name that are no UTF-8 appear as escapes."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def read_once(
    files: Sequence[tuple[SourceConfig, RawFile]],
) -> tuple[list[tuple[SourceConfig, RawFile]], tuple[Deferred, ...]]:
    """The files without those that a source has already under another name, and these."""
    seen: dict[tuple[str, int, int], RawFile] = {}
    once, repeated = [], []
    for source, file in sorted(files, key=lambda item: os.path.realpath(item[1].path) != str(item[1].path)):
        with suppress(OSError):  # reported where the file is read
            status = file.path.stat()
            first = seen.setdefault((source.name, status.st_dev, status.st_ino), file)
            if first is not file:
                repeated.append(Deferred(file.label, f"another path to {first.label}, which is read once"))
                continue
        once.append((source, file))
    order = {id(file): number for number, (_, file) in enumerate(files)}
    return sorted(once, key=lambda item: order[id(item[1])]), tuple(repeated)


def shortest_ends(paths: Sequence[Path]) -> dict[Path, str]:
    """For each path the shortest end that no other has: the name, with folders where names are the same."""
    ends: dict[Path, str] = {}
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        times = Counter(path.parts[-depth:] for path in paths)
        for path in paths:
            if path not in ends and times[path.parts[-depth:]] == 1:
                ends[path] = Path(*path.parts[-depth:]).as_posix()
    return ends


def moving_files(
    files: Sequence[RawFile], settle_seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> set[Path]:
    """Files that changed less than `settle_seconds` ago, and again while we waited for the rest of them."""
    now, rest, young = clock(), 0.0, {}
    for file in files:
        with suppress(OSError):  # reported where the file is read
            state = state_of(file.path)
            age = max(0.0, now - state[1] / 1e9)
            if age < settle_seconds:
                young[file.path], rest = state, max(rest, settle_seconds - age)
    if young:
        sleep(rest)
    moving = set(young)
    for path, state in young.items():
        with suppress(OSError):
            moving -= {path} if state_of(path) == state else set()
    return moving


def files_matching(pattern: str) -> list[str]:
    """Paths of a glob. `**` enters each folder once, by whatever link it is reached, so a loop of links ends."""
    if not (deep := DEEP.search(pattern)):
        return glob.glob(pattern, include_hidden=True)  # noqa: PTH207 - that skips dead links
    before, after = pattern[: deep.start()], pattern[deep.end() :] or "*"
    folders = sorted(glob.glob(before)) if glob.has_magic(before) else [before or "."]  # noqa: PTH207
    seen, links, found = set[str](), list[str](), list[str]()
    while folders or links:
        folder = folders.pop(0) if folders else links.pop(0)  # what no link leads to comes first
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        found += files_matching(f"{glob.escape(folder.rstrip('/'))}/{after}")
        with suppress(OSError), os.scandir(folder) as entries:  # one that may not be entered has no files for us
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    (links if entry.is_symlink() else folders).append(entry.path)
    return [path for path in found if deep.end() < len(pattern) or not Path(path).is_dir()]


def locate(source: SourceConfig, home: Path) -> list[tuple[Path, Path]]:
    """Where each file of a source comes from, and where it is on this machine."""
    location, downloads = source.location, home / "downloads" / source.name
    if location.startswith(BUILTIN):
        name = location.removeprefix(BUILTIN)
        if name not in MAKERS:
            raise NightStopped(f"source {source.name}: no built-in {name!r}, there are {', '.join(MAKERS)}")
        path = build_corpus(home) / f"{name}.jsonl"
        return [(path, path)]
    if location.startswith(HUB):
        path = bring_from_hub(source, downloads)
        return [(path, path)]
    if "://" in location:
        return bring_remote(source, downloads)
    path = Path(location).expanduser()
    found = [str(path)] if location and os.path.lexists(path) else []
    if not found and glob.has_magic(location):
        found = files_matching(str(path))
    return [(Path(name).absolute(),) * 2 for name in sorted(set(found))]
