"""What a model has read: of every row the tokens that training read, added up from shards and reading order."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from data.files import raw_records
from data.rows.keys import names_of
from data.rows.parts import PartRows
from data.sides.rules import SideRules
from data.tokens.shards import num_packed_rows, shard_paths
from model.tokens.order import Reading

SHARDS_AT_ONCE, ROWS_AT_ONCE = 64, 65_536
ROWS_NOTED = 20
READ_ROWS, LAST_STEPS = "read-rows.json", "last-steps.u4"
"""What a training stage writes about what it read, so that no question has to read all segments or shuffle again."""


@dataclass(frozen=True)
class TrainingInput:
    """What one training stage read."""

    kind: str
    """Of rows: pretrain or chat."""
    shards: Path
    """Folder of the packed rows."""
    reading: Reading


def sizes_of_shards(training: TrainingInput) -> dict[Path, int]:
    """Packed rows of the shards of the train side that have any, in order."""
    sizes = {path: num_packed_rows(path) for path in shard_paths(training.shards, training.kind, "train")}
    return {path: size for path, size in sizes.items() if size}


def some_segments(paths: list[Path]) -> Iterator[tuple[int, pl.LazyFrame]]:
    """Segments of some shards at a time, and the number of the first of these."""
    for start in range(0, len(paths), SHARDS_AT_ONCE):
        some = [f"{path}.segments.parquet" for path in paths[start : start + SHARDS_AT_ONCE]]
        yield start, pl.scan_parquet(some, include_file_paths="shard")


def segments_of_all(training: TrainingInput) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Packed row, length and document of every segment on the train side, each (N,), of some shards at a time."""
    sizes = sizes_of_shards(training)
    bases = np.cumsum([0, *sizes.values()])
    for start, scan in some_segments(list(sizes)):
        table = scan.select("row", "length", "document", pl.col("shard").rle_id()).collect()
        row, length, document, shard = (column.to_numpy() for column in table.get_columns())
        yield row + bases[start + shard.astype(np.int64)], length.astype(np.uint64), document


@dataclass(frozen=True)
class Exposure:
    """Tokens by number of row, each (rows,) uint32: eight bytes a row are all that is held."""

    packed: np.ndarray
    """Tokens of the row on the train side, all its copies together."""
    read: np.ndarray
    """Tokens that training read, counted each time."""


def exposure_of(trainings: Iterable[TrainingInput], num_rows: int) -> Exposure:
    """Add up what the stages read. Every segment counts as often as its packed row was read."""
    both = np.zeros(num_rows, dtype=np.uint64)  # packed above, read below: one trip to memory for the two
    for training in trainings:
        times = training.reading.times_read().astype(np.uint64)
        for rows, lengths, documents in segments_of_all(training):
            np.add.at(both, documents, (lengths << np.uint64(32)) + lengths * times[rows])
    halves = both.view(np.uint32).reshape(num_rows, 2)
    low = 0 if sys.byteorder == "little" else 1
    return Exposure(halves[:, 1 - low], halves[:, low])


@dataclass(frozen=True)
class ReadRows:
    """The rows that a training stage read, in short."""

    sources: dict[str, tuple[int, int]]
    """By source: rows that were read, and tokens, counted each time that they were read."""
    first: list[tuple[int, int, int]]
    """Of the first ROWS_NOTED rows: number, tokens on the train side, tokens read."""

    def write(self, folder: Path) -> None:
        (folder / READ_ROWS).write_text(json.dumps({"sources": self.sources, "first": self.first}), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> ReadRows:
        """What a training stage wrote into its folder."""
        content: dict[str, Any] = json.loads((folder / READ_ROWS).read_text(encoding="utf-8"))
        sources = {source: (rows, tokens) for source, (rows, tokens) in content["sources"].items()}
        return cls(sources, [(row, packed, read) for row, packed, read in content["first"]])

    @classmethod
    def of(cls, training: TrainingInput, *earlier: TrainingInput) -> ReadRows:
        """Added up from the segments of all shards; with `earlier` trainings on the same packed rows."""
        paths = list(sizes_of_shards(training))
        last = [scan.select(pl.col("document").max()).collect().item() for _, scan in some_segments(paths)]
        exposure = exposure_of([training, *earlier], max(last, default=-1) + 1)
        names: dict[str, int] = {}
        source_of = np.zeros(len(exposure.read), dtype=np.uint32)
        for _, scan in some_segments(paths):
            table = scan.select("document", pl.col("source").cast(pl.String)).collect()
            for (source,), segments in table.partition_by("source", as_dict=True).items():
                source_of[segments["document"].to_numpy()] = names.setdefault(str(source), len(names))
        rows = np.bincount(source_of[exposure.read > 0], minlength=len(names)).tolist()
        tokens = np.bincount(source_of, exposure.read, len(names)).astype(np.int64).tolist()
        first = np.flatnonzero(exposure.read)[:ROWS_NOTED]
        return cls(
            {name: (rows[code], tokens[code]) for name, code in sorted(names.items())},
            [(int(row), int(exposure.packed[row]), int(exposure.read[row])) for row in first],
        )


def note_reading(folder: Path, training: TrainingInput, *earlier: TrainingInput) -> None:
    """Write what a stage read into a folder: READ_ROWS, and LAST_STEPS if it stopped inside an epoch.

    READ_ROWS holds what `earlier` stages of the same model read of the same packed rows, too.
    LAST_STEPS holds, for each packed row, the step of the unfinished epoch that read it, 0 if none did; (N,) uint32.
    """
    ReadRows.of(training, *earlier).write(folder)
    if training.reading.rest:
        training.reading.last_steps().tofile(folder / LAST_STEPS)


def last_step(folder: Path, reading: Reading, row: int) -> int | None:
    """The step of the unfinished epoch that read a packed row, if one did; `folder`: where the reading was noted."""
    if not reading.rest:
        return None
    return int(raw_records(folder / LAST_STEPS, np.dtype("<u4"))[row]) or None


def rows_read(exposure: Exposure, part: PartRows, rules: SideRules) -> Iterator[pl.DataFrame]:
    """The rows of a part that training read, in order, as tables of `table_of_rows`."""
    rows = np.flatnonzero(exposure.read[part.base : part.base + part.count]) + part.base
    for start in range(0, len(rows), ROWS_AT_ONCE):
        here = rows[start : start + ROWS_AT_ONCE]
        yield table_of_rows(part, rules, here, exposure.packed[here], exposure.read[here])


def table_of_rows(
    part: PartRows, rules: SideRules, rows: np.ndarray, packed: np.ndarray, read: np.ndarray
) -> pl.DataFrame:
    """A table of R rows of a part: name, line, byte_offset, tokens, times.

    `rows` are their numbers, `packed` the tokens of all copies of each on the train side, `read` the tokens of each
    that training read, all (R,); `rules` say how many copies there are. `times` is tokens read over tokens of the row,
    so a row that was read in part counts as a fraction.
    """
    ids, facts = part.part.ids[rows - part.base], part.part.facts[rows - part.base]
    copies = np.zeros(len(rows), dtype=np.uint32)
    for _, chosen in rules.copies(part.source, ids):
        copies += chosen
    tokens = packed // copies
    return pl.DataFrame(
        {
            "name": names_of(ids),
            "line": facts["line"],
            "byte_offset": facts["byte_offset"],
            "tokens": tokens,
            "times": (read / tokens).round(3),
        }
    )
