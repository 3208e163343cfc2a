"""Sets of shingles of a few rows, read from their texts: what settles pairs that sketches leave open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from data.files import raw_records
from data.rows.parts import PartRows, places_in_parts, spoken_of
from data.rows.sketch import SKETCH_BYTES, shingle_hashes, sketches_of_shingles

SETS_AT_ONCE = 2_000
"""Rows whose sketches are made of their sets in one go."""
Shingles = Callable[[str, pl.Series], tuple[np.ndarray, np.ndarray]]
"""From a kind and the content of N rows to the shingles that count and the row of each."""


def of_whole_texts(_kind: str, content: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Every shingle that a scan sketches."""
    return shingle_hashes(spoken_of(content))


@dataclass(frozen=True)
class ShingleSets:
    """Sets by number of row."""

    rows: np.ndarray
    """(R,) numbers, ascending."""
    ends: np.ndarray
    """(R + 1,) where each set begins, and where the last one ends."""
    hashes: np.ndarray
    """uint64, those of each set ascending."""

    def of(self, row: int) -> np.ndarray:
        index = int(np.searchsorted(self.rows, row))
        return self.hashes[self.ends[index] : self.ends[index + 1]]

    def alike(self, one: int, other: int, threshold: float) -> bool:
        """Whether the Jaccard similarity of two rows, not both without a word, is at least the threshold."""
        small, large = sorted((self.of(one), self.of(other)), key=len)
        if len(small) < threshold * len(large):
            return False
        place = np.minimum(np.searchsorted(large, small), len(large) - 1)
        common = np.count_nonzero(large[place] == small)
        return bool(common / (len(small) + len(large) - common) >= threshold)

    def sketches(self) -> np.ndarray:
        """Of each set, (R, SKETCH_BYTES) uint8: that of a scan where every shingle counts."""
        found = [np.zeros((0, SKETCH_BYTES), dtype=np.uint8)]
        for start in range(0, len(self.rows), SETS_AT_ONCE):
            ends = self.ends[start : start + SETS_AT_ONCE + 1]
            owner = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
            found.append(sketches_of_shingles(np.array(self.hashes[ends[0] : ends[-1]]), owner, len(ends) - 1))
        return np.concatenate(found)


def contents_at(part: PartRows, places: np.ndarray) -> Iterator[pl.Series]:
    """Contents of rows of a part, by ascending places, a chunk at a time."""
    start = 0
    for content in part.part.rows():
        here = places[slice(*np.searchsorted(places, (start, start + len(content))))] - start
        start += len(content)
        if len(here):
            yield content.to_series().gather(here)
        if start > places[-1]:
            return


@contextmanager
def shingle_sets(
    parts: Sequence[PartRows], rows: np.ndarray, path: Path, shingles: Shingles = of_whole_texts
) -> Iterator[ShingleSets]:
    """Sets of rows, ascending numbers, in a file that is there as long as they are: memory stays flat."""
    sizes = [np.zeros(1, dtype=np.int64)]
    with path.open("wb") as stream:
        for p, places in places_in_parts(parts, rows):
            for content in contents_at(p, places):
                hashes, owner = shingles(p.kind, content)
                order = np.lexsort((hashes, owner))
                hashes, owner = hashes[order], owner[order]
                first = np.append(True, (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1]))[: len(hashes)]
                stream.write(hashes[first].tobytes())
                sizes.append(np.bincount(owner[first], minlength=len(content)))
    try:
        yield ShingleSets(rows, np.cumsum(np.concatenate(sizes)), raw_records(path, np.dtype("<u8")))
    finally:
        path.unlink()
