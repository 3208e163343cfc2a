"""All rows, numbered through parts and generations, and what was decided of each: kept in files that are only added to.

A generation is what one night brought. Its files `gNNNN.*` hold fate, cluster and kept row of each of its rows; nothing
of an earlier generation is written again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data.files import raw_records
from data.rows.keys import ID_DTYPE
from data.rows.parts import KINDS, Part, PartRows, places_in_parts
from data.rows.sketch import SKETCH_BYTES

KEPT, EXACT, NEAR, STRADDLING = range(4)
FATES = ("kept", "exact duplicate", "near duplicate", "near duplicate of rows on both sides")
ROWS = "rows.json"
NOBODY = np.uint32(0xFFFFFFFF)
"""No row."""


@dataclass(frozen=True)
class Generation:
    """Rows of one night: numbers `base` to `base + count - 1`."""

    folder: Path
    number: int
    base: int
    count: int

    @property
    def prefix(self) -> Path:
        return self.folder / f"g{self.number:04d}"

    @property
    def fates(self) -> np.ndarray:
        """(count,) uint8, codes of FATES."""
        return raw_records(self.prefix.with_name(f"{self.prefix.name}.fates"), np.dtype(np.uint8))

    @property
    def clusters(self) -> np.ndarray:
        """(count,) of ID_DTYPE: the name of the cluster each distinct row is in; zero for exact duplicates."""
        return raw_records(self.prefix.with_name(f"{self.prefix.name}.clusters"), ID_DTYPE)

    @property
    def kept(self) -> np.ndarray:
        """(count,) uint32: number of the kept row that a row is or was left out for; NOBODY of exact duplicates."""
        return raw_records(self.prefix.with_name(f"{self.prefix.name}.kept"), np.dtype("<u4"))


@dataclass(frozen=True)
class Ledger:
    """All rows of all generations, numbered: which part each is of, and what became of it."""

    parts: tuple[PartRows, ...]
    generations: tuple[Generation, ...]

    def write(self, folder: Path) -> None:
        content = {
            "parts": [{**asdict(p), "part": p.part.number} for p in self.parts],
            "generations": [{"number": g.number, "base": g.base, "count": g.count} for g in self.generations],
        }
        (folder / ROWS).write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, parts_folder: Path) -> Ledger:
        content = json.loads((folder / ROWS).read_text(encoding="utf-8"))
        return cls(
            tuple(PartRows(**{**p, "part": Part(parts_folder, p["part"])}) for p in content["parts"]),
            tuple(Generation(folder, **g) for g in content["generations"]),
        )

    @property
    def next_row(self) -> int:
        return sum(p.count for p in self.parts)

    @property
    def bases(self) -> np.ndarray:
        return np.array([p.base for p in self.parts], dtype=np.int64)

    @property
    def kinds(self) -> np.ndarray:
        """Index of each part's kind in KINDS."""
        return np.array([KINDS.index(p.kind) for p in self.parts], dtype=np.int64)

    def fates_of(self, part: PartRows) -> np.ndarray:
        """Codes of FATES for the rows of a part."""
        generation, start = self.place(part)
        return generation.fates[start : start + part.count]

    def clusters_of(self, part: PartRows) -> np.ndarray:
        generation, start = self.place(part)
        return generation.clusters[start : start + part.count]

    def place(self, part: PartRows) -> tuple[Generation, int]:
        generation = next(g for g in reversed(self.generations) if g.base <= part.base)
        return generation, part.base - generation.base

    def kind_of_rows(self, rows: np.ndarray) -> np.ndarray:
        return self.kinds[np.searchsorted(self.bases, rows, side="right") - 1]


def names_of_rows(parts: Sequence[PartRows], rows: np.ndarray) -> np.ndarray:
    """Names of rows given by number, ascending."""
    found = [p.part.ids[places] for p, places in places_in_parts(parts, rows)]
    return np.concatenate(found) if found else np.zeros(0, dtype=ID_DTYPE)


def names_of_any_rows(parts: Sequence[PartRows], rows: np.ndarray) -> np.ndarray:
    """Names of rows given by number, in any order."""
    numbers, inverse = np.unique(rows, return_inverse=True)
    return names_of_rows(parts, numbers)[inverse]


def sketches_of_rows(parts: Sequence[PartRows], rows: np.ndarray) -> np.ndarray:
    """Sketches of rows given by number, ascending."""
    found = [p.part.sketches[places] for p, places in places_in_parts(parts, rows)]
    return np.concatenate(found) if found else np.zeros((0, SKETCH_BYTES), dtype=np.uint8)


def clusters_of_rows(ledger: Ledger, rows: np.ndarray) -> np.ndarray:
    """Clusters of rows given by number."""
    return of_generations(ledger, rows, lambda generation: generation.clusters, np.zeros(1, dtype=ID_DTYPE))


def kept_of_rows(ledger: Ledger, rows: np.ndarray) -> np.ndarray:
    """The kept rows that rows given by number are or were left out for, (N,) uint32."""
    return of_generations(ledger, rows, lambda generation: generation.kept, np.array([NOBODY]))


def of_generations(
    ledger: Ledger, rows: np.ndarray, column: Callable[[Generation], np.ndarray], otherwise: np.ndarray
) -> np.ndarray:
    found = np.repeat(otherwise, len(rows))
    for generation in ledger.generations:
        of_it = (rows >= generation.base) & (rows < generation.base + generation.count)
        found[of_it] = column(generation)[rows[of_it] - generation.base]
    return found
