"""Parts of neighbouring pieces of a kind in common files (`data.folding`): each is still read by itself.

`NNNNN-NNNNN.*` are the files of several parts, named by the numbers of the first and the last. A table beside them
says where in them each lies, so that a part keeps its number, its rows and its quarantined lines.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import polars as pl

from data.folding import Batches, join_arrow, num_of_one_schema, number_folded
from data.rows.parts import Part

TABLE = "folded.json"
FULL_BYTES = 1 << 28
"""Of the files of several parts."""


@dataclass(frozen=True)
class Span:
    """From where, and how much."""

    start: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.count


@dataclass(frozen=True)
class FoldedPart(Part):
    """A part that lies in files with others."""

    stem: str
    """Of the names of the files."""
    places: Span
    """Of its rows among theirs."""
    batches: Span
    """Of its content."""
    bad_bytes: Span
    """Of its quarantined lines."""

    def path(self, suffix: str) -> Path:
        """A file that it lies in."""
        return self.folder / f"{self.stem}.{suffix}"

    def rows(self) -> Iterator[pl.DataFrame]:
        return content_of(self).read()

    @property
    def ids(self) -> np.ndarray:
        return super().ids[self.places.start : self.places.stop]

    @property
    def sketches(self) -> np.ndarray:
        return super().sketches[self.places.start : self.places.stop]

    @property
    def facts(self) -> np.ndarray:
        return super().facts[self.places.start : self.places.stop]


@dataclass(frozen=True)
class Lines:
    """Whole lines of a file, from one byte to before another."""

    path: Path
    start: int
    stop: int

    @property
    def num_bytes(self) -> int:
        return self.stop - self.start

    def read(self, num_bytes: int | None = None) -> bytes:
        """All of them, or the first bytes."""
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.num_bytes if num_bytes is None else min(self.num_bytes, num_bytes))

    def __iter__(self) -> Iterator[bytes]:
        at = self.start
        with self.path.open("rb") as stream:
            stream.seek(at)
            while at < self.stop:
                line = stream.readline()
                at += len(line)
                yield line


def content_of(part: Part) -> Batches:
    path = part.path("rows.arrow")
    return Batches(path, part.batches.start, part.batches.count) if isinstance(part, FoldedPart) else Batches(path)


def bad_lines_of(part: Part) -> Lines:
    """Quarantined lines, as JSON."""
    path = part.path("quarantine.jsonl")
    if isinstance(part, FoldedPart):
        return Lines(path, part.bad_bytes.start, part.bad_bytes.stop)
    return Lines(path, 0, path.stat().st_size)


@dataclass(frozen=True)
class Parts:
    """The parts in a folder, wherever they lie in it."""

    folder: Path
    folded: Mapping[int, FoldedPart]
    """Those in files with others, by number."""

    @classmethod
    def read(cls, folder: Path) -> Parts:
        path = folder / TABLE
        table: dict[str, list[list[int]]] = json.loads(path.read_text()) if path.exists() else {}
        found: dict[int, FoldedPart] = {}
        for stem, entries in table.items():
            spans = [
                [Span(start, count) for start, count in zip(accumulate(column, initial=0), column, strict=False)]
                for column in list(zip(*entries, strict=True))[1:]
            ]
            for (number, *_), where in zip(entries, zip(*spans, strict=True), strict=True):
                found[number] = FoldedPart(folder, number, stem, *where)
        return cls(folder, found)

    def of(self, number: int) -> Part:
        """The part of a number, which is there."""
        return self.folded.get(number) or Part(self.folder, number)

    def by_files(self, numbers: Iterable[int]) -> dict[str, list[Part]]:
        """Some parts in order, by the stem of the names of their files."""
        found: dict[str, list[Part]] = defaultdict(list)
        for part in map(self.of, sorted(numbers)):
            found[part.stem if isinstance(part, FoldedPart) else stem_of([part.number])].append(part)
        return found


def stem_of(numbers: Sequence[int]) -> str:
    """Of the names of the files of one part or of several."""
    return f"{numbers[0]:05d}" + (f"-{numbers[-1]:05d}" if len(numbers) > 1 else "")


def write_table(folder: Path, groups: Iterable[tuple[Sequence[Part], Sequence[int]]]) -> None:
    """Say where parts lie that have these numbers in the folder, each group in its own files."""
    table = {
        stem_of(numbers): [
            (number, len(part.ids), content_of(part).number, bad_lines_of(part).num_bytes)
            for part, number in zip(parts, numbers, strict=True)
        ]
        for parts, numbers in groups
        if len(parts) > 1
    }
    if table:
        (folder / TABLE).write_text(json.dumps(table), encoding="utf-8")


def write_together(parts: Sequence[Part], folder: Path, numbers: Sequence[int]) -> None:
    """Write the files of parts of one kind, which get new numbers, as one file of each sort."""

    def path(suffix: str) -> Path:
        return folder / f"{stem_of(numbers)}.{suffix}"

    join_arrow([content_of(part) for part in parts], path("rows.arrow"))
    for suffix in ("ids", "sketches", "facts"):
        with path(suffix).open("xb") as stream:
            for part in parts:
                stream.write(np.ascontiguousarray(getattr(part, suffix)).tobytes())
    with path("quarantine.jsonl").open("xb") as stream:
        for part in parts:
            stream.write(bad_lines_of(part).read())


def take_parts(old: Parts, numbers: Mapping[int, int], folder: Path) -> dict[str, str]:
    """Bring some parts into an empty folder under new numbers, in the same order: what can be linked is not written.

    numbers: the old number of each and its new one.

    Returns the stems of the names of old files that are to be linked, and of the names that the links get. Files of
    parts that are not all taken are written anew, without the others.
    """
    all_of, links = old.by_files({*old.folded, *numbers}), {}
    groups = [(parts, [numbers[part.number] for part in parts]) for parts in old.by_files(numbers).values()]
    for (stem, parts), (_, after) in zip(old.by_files(numbers).items(), groups, strict=True):
        if len(parts) == len(all_of[stem]):
            links[stem] = stem_of(after)
        else:
            write_together(parts, folder, after)
    write_table(folder, groups)
    return links


def fold_parts(folder: Path, kinds: Mapping[int, str], fresh: Collection[int]) -> None:
    """Join the files of the newest parts of each kind that has fresh ones.

    Call it in a folder that nobody reads yet: where parts are new, whatever depends on them is done anew in any case.

    kinds: of all parts in the folder, by number.
    fresh: numbers of the parts that are new in it.
    """
    for kind in sorted({kinds[number] for number in fresh}):
        parts = Parts.read(folder)
        every = parts.by_files(kinds)
        groups = [some for some in every.values() if kinds[some[0].number] == kind]
        groups = groups[len(groups) - num_of_one_schema([some[0].path("rows.arrow") for some in groups]) :]
        count = number_folded([sum(file.stat().st_size for file in some[0].files) for some in groups], FULL_BYTES)
        if not count:
            continue
        joined = [part for some in groups[-count:] for part in some]
        numbers = [part.number for part in joined]
        write_together(joined, folder, numbers)
        others = [some for some in every.values() if some[0].number not in numbers]
        write_table(folder, [(some, [part.number for part in some]) for some in (*others, joined)])
        for file in {file for part in joined for file in part.files}:
            file.unlink()
