"""Every row of a volume by its name: a sorted index, built out of core and searched through a memory map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from data.files import raw_records
from data.rows.keys import ID_DTYPE
from data.rows.parts import PartRows

ROWS_PER_PASS = 2_000_000
"""Rows sorted at once; more rows take more passes, each over the names of its own range."""


@dataclass(frozen=True)
class NameIndex:
    """Sorted names and the row that bears each; one name may stand several times, in order of kind and row."""

    hi: np.ndarray
    lo: np.ndarray
    rows: np.ndarray

    @classmethod
    def open(cls, prefix: Path) -> NameIndex:
        return cls(*(raw_records(path, dtype) for path, dtype in columns_of(prefix)))

    def range_of(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last-but-one position of each name, equal where there is none; ids are (N,) of ID_DTYPE."""
        first = np.searchsorted(self.hi, ids["hi"], side="left")
        last = np.searchsorted(self.hi, ids["hi"], side="right")
        for n in np.flatnonzero(first < last):  # equal upper halves of different names are rare: 64 bits
            inside = np.flatnonzero(self.lo[first[n] : last[n]] == ids["lo"][n])
            first[n], last[n] = (first[n] + inside[0], first[n] + inside[-1] + 1) if len(inside) else (0, 0)
        return first, last

    def bears(self, ids: np.ndarray, kind_of_row: np.ndarray, bases: np.ndarray, kind: int) -> np.ndarray:
        """Whether a row of `kind` bears each name. Rows of a name stand in order of kind: the two ends decide."""
        first, last = self.range_of(ids)
        found = first < last
        answer = np.zeros(len(ids), dtype=bool)
        for end in (first[found], last[found] - 1):
            part = np.searchsorted(bases, self.rows[end], side="right") - 1
            answer[found] |= kind_of_row[part] == kind
        return answer


def columns_of(prefix: Path) -> list[tuple[Path, np.dtype[Any]]]:
    """Files of an index and what is in them, in order of its fields."""
    columns = {"hi": "<u8", "lo": "<u8", "rows": "<u4"}
    return [(prefix.with_name(f"{prefix.name}.names.{name}"), np.dtype(of)) for name, of in columns.items()]


def passes(parts: Sequence[PartRows]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Names in ascending ranges: (ids, row numbers, kinds), unsorted inside a range, parts in order of kind."""
    total = sum(p.count for p in parts)
    num_passes = max(1, -(-total // ROWS_PER_PASS))
    edges = [(n << 64) // num_passes for n in range(num_passes + 1)]
    kinds = sorted({p.kind for p in parts}, reverse=True)
    ordered = sorted(parts, key=lambda p: (kinds.index(p.kind), p.base))
    for low, high in pairwise(edges):
        ids, rows, codes = [], [], []
        for p in ordered:
            names = p.part.ids
            inside = np.flatnonzero((names["hi"] >= np.uint64(low)) & (names["hi"] <= np.uint64(high - 1)))
            ids.append(names[inside])
            rows.append((inside + p.base).astype(np.uint32))
            codes.append(np.full(len(inside), kinds.index(p.kind), dtype=np.uint8))
        yield (
            np.concatenate(ids) if ids else np.zeros(0, dtype=ID_DTYPE),
            np.concatenate(rows) if rows else np.zeros(0, dtype=np.uint32),
            np.concatenate(codes) if codes else np.zeros(0, dtype=np.uint8),
        )


def build_names(parts: Sequence[PartRows], prefix: Path) -> np.ndarray:
    """Write the index of these parts' rows; returns which rows repeat the name of an earlier row of their kind.

    The answer is (N,) bool, counted from the first part's base.
    """
    base = min((p.base for p in parts), default=0)
    repeated = np.zeros(sum(p.count for p in parts), dtype=bool)
    streams = [path.open("wb") for path, _ in columns_of(prefix)]
    for ids, rows, kinds in passes(parts):
        order = np.argsort(ids["hi"], kind="stable")
        hi, lo = ids["hi"][order], ids["lo"][order]
        if ((hi[1:] == hi[:-1]) & (lo[1:] != lo[:-1])).any():
            order = np.lexsort((rows, kinds, ids["lo"], ids["hi"]))
            hi, lo = ids["hi"][order], ids["lo"][order]
        rows, kinds = rows[order], kinds[order]
        same = (hi[1:] == hi[:-1]) & (lo[1:] == lo[:-1]) & (kinds[1:] == kinds[:-1])
        repeated[rows[1:][same] - base] = True
        for stream, array in zip(streams, (hi, lo, rows), strict=True):
            stream.write(np.ascontiguousarray(array).tobytes())
    for stream in streams:
        stream.close()
    return repeated


def fold_names(prefixes: Sequence[Path], into: Path, kind_of_rows: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write the indexes of neighbouring rows as one; `kind_of_rows` maps numbers of rows to indexes in KINDS."""
    indexes = [NameIndex.open(prefix) for prefix in prefixes]
    hi, lo, rows = (np.concatenate([getattr(index, name) for index in indexes]) for name in ("hi", "lo", "rows"))
    order = np.argsort(hi, kind="stable")
    same = hi[order][1:] == hi[order][:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same)[: len(hi)])
    some = order[tied]
    order[tied] = some[np.lexsort((rows[some], kind_of_rows(rows[some]), lo[some], hi[some]))]
    for (path, _), column in zip(columns_of(into), (hi, lo, rows), strict=True):
        column[order].tofile(path)
