"""All rows, numbered through parts and generations, and what was decided of each: kept in files that are only added to.

A generation is what one night brought, a volume the files of one or of several neighbouring ones that were folded
(`volumes`): `gNNNN.*` or `gNNNN-gNNNN.*` hold fate, cluster and kept row of each of its rows. Nothing of an earlier
generation is decided again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data.files import raw_records
from data.rows.folding import Parts
from data.rows.keys import ID_DTYPE
from data.rows.parts import KINDS, PartRows, places_in_parts
from data.rows.sketch import SKETCH_BYTES

KEPT, EXACT, NEAR, STRADDLING = range(4)
FATES = ("kept", "exact duplicate", "near duplicate", "near duplicate of rows on both sides")
ROWS = "rows.json"
NOBODY = np.uint32(0xFFFFFFFF)
"""No row."""


@dataclass(frozen=True)
class Generation:
    """Rows of one night: numbers `base` to `base + count - 1`."""

    number: int
    base: int
    count: int


@dataclass(frozen=True)
class Volume:
    """Files of the rows of one generation, or of neighbouring ones."""

    folder: Path
    generations: tuple[Generation, ...]
    """In order; one at least."""
    shared: tuple[int, ...] = ()
    """How many shingles each of several generations found that many rows share; empty of a single one."""

    @property
    def name(self) -> str:
        first, last = self.generations[0], self.generations[-1]
        return f"g{first.number:04d}" + (f"-g{last.number:04d}" if first != last else "")

    @property
    def prefix(self) -> Path:
        return self.folder / self.name

    @property
    def own_prefix(self) -> Path:
        """Of the index of rows that are compared by what is their own (`likeness`)."""
        return self.folder / f"{self.name}.own"

    @property
    def base(self) -> int:
        return self.generations[0].base

    @property
    def count(self) -> int:
        return sum(generation.count for generation in self.generations)

    @property
    def bases(self) -> np.ndarray:
        """(G,) int64, of the generations."""
        return np.array([generation.base for generation in self.generations], dtype=np.int64)

    def path(self, suffix: str) -> Path:
        return self.folder / f"{self.name}.{suffix}"

    @property
    def fates(self) -> np.ndarray:
        """(count,) uint8, codes of FATES."""
        return raw_records(self.path("fates"), np.dtype(np.uint8))

    @property
    def clusters(self) -> np.ndarray:
        """(count,) of ID_DTYPE: the name of the cluster each distinct row is in; zero for exact duplicates."""
        return raw_records(self.path("clusters"), ID_DTYPE)

    @property
    def kept(self) -> np.ndarray:
        """(count,) uint32: number of the kept row that a row is or was left out for; NOBODY of exact duplicates."""
        return raw_records(self.path("kept"), np.dtype("<u4"))

    @property
    def shared_by_generation(self) -> list[np.ndarray]:
        """The shingles that each generation found that many rows share (`prompts`), each (S,) uint64, ascending."""
        path = self.path("shared")  # not written where rows are compared by name alone
        found = raw_records(path, np.dtype("<u8")) if path.exists() else np.zeros(0, dtype=np.uint64)
        return np.split(found, np.cumsum(self.shared, dtype=np.int64)[:-1])


@dataclass(frozen=True)
class Ledger:
    """All rows of all generations, numbered: which part each is of, and what became of it."""

    parts: tuple[PartRows, ...]
    volumes: tuple[Volume, ...]

    @property
    def generations(self) -> tuple[Generation, ...]:
        return tuple(generation for volume in self.volumes for generation in volume.generations)

    def write(self, folder: Path) -> None:
        content = {
            "parts": [{**asdict(p), "part": p.part.number} for p in self.parts],
            "generations": [asdict(generation) for generation in self.generations],
            "folded": [
                {"first": volume.generations[0].number, "shared": volume.shared}
                for volume in self.volumes
                if volume.shared
            ],
        }
        (folder / ROWS).write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, parts_folder: Path) -> Ledger:
        """Also of folders of the time when every generation had files of its own."""
        content = json.loads((folder / ROWS).read_text(encoding="utf-8"))
        generations = [Generation(**g) for g in content["generations"]]
        folded = {volume["first"]: tuple(volume["shared"]) for volume in content.get("folded", ())}
        volumes: list[Volume] = []
        while generations:
            shared = folded.get(generations[0].number, ())
            volumes.append(Volume(folder, tuple(generations[: len(shared) or 1]), shared))
            del generations[: len(shared) or 1]
        parts = Parts.read(parts_folder)
        return cls(tuple(PartRows(**{**p, "part": parts.of(p["part"])}) for p in content["parts"]), tuple(volumes))

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
        volume, start = self.place(part.base)
        return volume.fates[start : start + part.count]

    def clusters_of(self, part: PartRows) -> np.ndarray:
        volume, start = self.place(part.base)
        return volume.clusters[start : start + part.count]

    def place(self, row: int) -> tuple[Volume, int]:
        """The volume that a row, given by number, is in, and its place there."""
        volume = next(volume for volume in reversed(self.volumes) if volume.base <= row)
        return volume, row - volume.base

    def generation(self, row: int) -> Generation:
        """The one that brought a row."""
        volume, _ = self.place(row)
        return next(generation for generation in reversed(volume.generations) if generation.base <= row)

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
    return of_volumes(ledger, rows, lambda volume: volume.clusters, np.zeros(1, dtype=ID_DTYPE))


def kept_of_rows(ledger: Ledger, rows: np.ndarray) -> np.ndarray:
    """The kept rows that rows given by number are or were left out for, (N,) uint32."""
    return of_volumes(ledger, rows, lambda volume: volume.kept, np.array([NOBODY]))


def of_volumes(
    ledger: Ledger, rows: np.ndarray, column: Callable[[Volume], np.ndarray], otherwise: np.ndarray
) -> np.ndarray:
    found = np.repeat(otherwise, len(rows))
    for volume in ledger.volumes:
        of_it = (rows >= volume.base) & (rows < volume.base + volume.count)
        found[of_it] = column(volume)[rows[of_it] - volume.base]
    return found
