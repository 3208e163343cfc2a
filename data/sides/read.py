"""Files of the two sides: slices of the validation side, buckets of the train side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data.files import read_batches
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


def train_path(folder: Path, kind: str, generation: int, bucket: int, dealer: int) -> Path:
    return folder / f"{kind}.train.g{generation:04d}.b{bucket:04d}.d{dealer}.arrow"


def val_path(folder: Path, kind: str, generation: int) -> Path:
    return folder / f"{kind}.val.g{generation:04d}.arrow"


@dataclass(frozen=True)
class Bucket:
    """One range of the order of one generation: the unit in which the train side is read."""

    kind: str
    generation: int
    number: int
    files: tuple[Path, ...]

    @property
    def place(self) -> tuple[int, int]:
        """Generation and number: in this order the train side stands."""
        return self.generation, self.number

    @property
    def num_bytes(self) -> int:
        """Of its files, compressed."""
        return sum(path.stat().st_size for path in self.files)

    def read(self) -> pl.DataFrame:
        """Its rows in shuffled order: ORDER's columns and the content."""
        frames = [frame for path in self.files for frame in read_batches(path)]
        return pl.concat(frames).sort("order", "row")


def train_buckets(folder: Path, kind: str, generation: int | None = None) -> list[Bucket]:
    """Buckets of the train side in order, of one generation or of all."""
    found: dict[tuple[int, int], list[Path]] = {}
    for path in sorted(folder.glob(f"{kind}.train.g*.arrow")):
        _, _, g, b, _, _ = path.name.split(".")
        found.setdefault((int(g[1:]), int(b[1:])), []).append(path)
    return [Bucket(kind, g, b, tuple(files)) for (g, b), files in sorted(found.items()) if generation in (None, g)]


def with_content(schema: pl.Schema, kind: str) -> pl.Schema:
    return pl.Schema({**dict(schema.items()), **dict(CONTENT[kind].items())})


def read_val(folder: Path, kind: str) -> pl.DataFrame:
    """All validation rows of a kind, generation by generation: VAL's columns and the content."""
    frames = [frame for path in sorted(folder.glob(f"{kind}.val.g*.arrow")) for frame in read_batches(path)]
    return pl.concat(frames) if frames else pl.DataFrame(schema=with_content(VAL, kind))


def read_train(folder: Path, kind: str) -> pl.DataFrame:
    """All train rows of a kind, in order; for small data and tests."""
    frames = [bucket.read() for bucket in train_buckets(folder, kind)]
    return pl.concat(frames) if frames else pl.DataFrame(schema=with_content(ORDER, kind))
