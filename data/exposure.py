"""What a model has read: of every row the tokens that training went over, added up from shards and reading order."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from data.keys import names_of
from data.lookup import num_packed_rows
from data.names import PartRows
from data.shards import shard_paths
from data.sides import SideRules
from model.order import Reading

SHARDS_AT_ONCE, ROWS_AT_ONCE = 64, 65_536


@dataclass(frozen=True)
class Trained:
    """One training stage: which packed rows it read, and where they lie."""

    kind: str
    shards: Path
    reading: Reading


def segments_of_all(trained: Trained) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Packed row, length and document of every segment on the train side, each (N,), of some shards at a time."""
    sizes = {path: num_packed_rows(path) for path in shard_paths(trained.shards, trained.kind, "train")}
    paths = [path for path, size in sizes.items() if size]
    bases = np.cumsum([0, *(sizes[path] for path in paths)])
    for start in range(0, len(paths), SHARDS_AT_ONCE):
        some = [f"{path}.segments.parquet" for path in paths[start : start + SHARDS_AT_ONCE]]
        scan = pl.scan_parquet(some, include_file_paths="shard")
        table = scan.select("row", "length", "document", pl.col("shard").rle_id()).collect()
        row, length, document, shard = (column.to_numpy() for column in table.get_columns())
        yield row + bases[start + shard.astype(np.int64)], length.astype(np.uint64), document


@dataclass(frozen=True)
class Exposure:
    """Tokens by number of row, each (rows,) uint32: eight bytes a row are all that is held."""

    packed: np.ndarray
    """Tokens of the row on the train side, all its copies together."""
    read: np.ndarray
    """Tokens that training went over, again for each time."""


def exposure_of(trained: Iterable[Trained], num_rows: int) -> Exposure:
    """Add up what the stages read. Every segment counts as often as its packed row was read."""
    both = np.zeros(num_rows, dtype=np.uint64)  # packed above, read below: one trip to memory for the two
    for stage in trained:
        times = stage.reading.times_read().astype(np.uint64)
        for rows, lengths, documents in segments_of_all(stage):
            np.add.at(both, documents, (lengths << np.uint64(32)) + lengths * times[rows])
    halves = both.view(np.uint32).reshape(num_rows, 2)
    low = 0 if sys.byteorder == "little" else 1
    return Exposure(halves[:, 1 - low], halves[:, low])


def rows_read(exposure: Exposure, part: PartRows, rules: SideRules, limit: int | None = None) -> Iterator[pl.DataFrame]:
    """The rows of a part that training went over, in order, at most `limit`: name, line, byte_offset, tokens, times.

    `times` is tokens read over tokens of the row, so of a long row that was read in part, only the part counts.
    """
    read = exposure.read[part.base : part.base + part.count]
    packed = exposure.packed[part.base : part.base + part.count]
    places = np.flatnonzero(read)[:limit]
    for start in range(0, len(places), ROWS_AT_ONCE):
        here = places[start : start + ROWS_AT_ONCE]
        ids, facts = part.part.ids[here], part.part.facts[here]
        copies = np.zeros(len(here), dtype=np.uint32)
        for _, chosen in rules.copies(part.source, ids):
            copies += chosen
        tokens = packed[here] // copies
        yield pl.DataFrame(
            {
                "name": names_of(ids),
                "line": facts["line"],
                "byte_offset": facts["byte_offset"],
                "tokens": tokens,
                "times": (read[here] / tokens).round(3),
            }
        )
