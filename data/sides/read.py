"""Files of the two sides: slices of the validation side, buckets of the train side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data.files import read_batches
from data.folding import Batches, schema_of
from data.rows.parts import CONTENT

ORDER = pl.Schema({"order": pl.UInt64, "row": pl.UInt32, "source": pl.String, "domain": pl.UInt8})
"""Columns beside the content of a train row."""
VAL = pl.Schema(
    {
        "row_id": pl.String,
        "row": pl.UInt32,
        "source": pl.String,
        "domain": pl.String,
        "slice": pl.String,
        "cluster": pl.String,
    }
)
"""Columns beside the content of a validation row; `cluster` is the name of its cluster of near duplicates."""


Place = tuple[int, int]
"""Generation and number of a bucket."""


def place_name(place: Place) -> str:
    return f"g{place[0]:04d}.b{place[1]:04d}"


def train_path(folder: Path, kind: str, place: Place, dealer: int) -> Path:
    return folder / f"{kind}.train.{place_name(place)}.d{dealer}.arrow"


def val_path(folder: Path, kind: str, generation: int) -> Path:
    return folder / f"{kind}.val.g{generation:04d}.arrow"


def val_paths(folder: Path, kind: str) -> list[Path]:
    """Files of the validation side in order, of one generation each or, folded, of several."""
    return sorted(folder.glob(f"{kind}.val.g*.arrow"))


def val_span(path: Path) -> tuple[int, int]:
    """The first and the last generation whose validation rows are in a file, perhaps the same."""
    words = path.name.split(".")[2].split("-")
    return int(words[0][1:]), int(words[-1][1:])


def val_path_of(folder: Path, kind: str, generation: int) -> Path | None:
    """The file that has the validation rows of a generation, if it added any."""
    spans = ((path, val_span(path)) for path in val_paths(folder, kind))
    return next((path for path, (first, last) in spans if first <= generation <= last), None)


@dataclass(frozen=True)
class Bucket:
    """One range of the order of one generation: the unit in which the train side is read."""

    kind: str
    generation: int
    number: int
    files: tuple[Batches, ...]
    num_bytes: int
    """Of its files, compressed, as they were written first."""

    @property
    def place(self) -> Place:
        """In this order the train side stands."""
        return self.generation, self.number

    @property
    def is_folded(self) -> bool:
        """Whether it lies in a file with others."""
        return any(file.count is not None for file in self.files)

    def read(self) -> pl.DataFrame:
        """Its rows in shuffled order: ORDER's columns and the content."""
        frames = [frame for file in self.files for frame in file.read()]
        return pl.concat(frames).sort("order", "row")


FOLDED = b"buckets"
"""Of the metadata of a file that holds several buckets: JSON, of each generation, number, record batches and bytes."""


def folded_buckets(path: Path, kind: str) -> Iterator[Bucket]:
    """Those of a file that holds several, in order."""
    start = 0
    for generation, number, count, num_bytes in json.loads(schema_of(path).metadata[FOLDED]):
        yield Bucket(kind, generation, number, (Batches(path, start, count),), num_bytes)
        start += count


def train_buckets(folder: Path, kind: str, generation: int | None = None) -> list[Bucket]:
    """Buckets of the train side in order, of one generation or of all."""
    found: dict[Place, list[Path]] = {}
    buckets: list[Bucket] = []
    for path in sorted(folder.glob(f"{kind}.train.g*.arrow")):
        if "-" in path.name:
            buckets += folded_buckets(path, kind)
        else:
            _, _, g, b, _, _ = path.name.split(".")
            found.setdefault((int(g[1:]), int(b[1:])), []).append(path)
    for place, files in found.items():
        num_bytes = sum(path.stat().st_size for path in files)
        buckets.append(Bucket(kind, *place, tuple(map(Batches, files)), num_bytes))
    return sorted((b for b in buckets if generation in (None, b.generation)), key=lambda bucket: bucket.place)


def with_content(schema: pl.Schema, kind: str) -> pl.Schema:
    return pl.Schema({**dict(schema.items()), **dict(CONTENT[kind].items())})


def read_val(folder: Path, kind: str) -> pl.DataFrame:
    """All validation rows of a kind, generation by generation: VAL's columns and the content."""
    frames = [frame for path in val_paths(folder, kind) for frame in read_batches(path)]
    return pl.concat(frames) if frames else pl.DataFrame(schema=with_content(VAL, kind))


def read_train(folder: Path, kind: str) -> pl.DataFrame:
    """All train rows of a kind, in order; for small data and tests."""
    frames = [bucket.read() for bucket in train_buckets(folder, kind)]
    return pl.concat(frames) if frames else pl.DataFrame(schema=with_content(ORDER, kind))
