"""The folder of `split`: rows of the train side in shuffled order, and validation slices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from data.sides.read import read_train, read_val, train_buckets

SIDES = ("train", "val")


def read_rows(folder: Path, kind: str, side: str) -> pl.DataFrame:
    """All rows of one kind on one side, the train side in shuffled order."""
    return read_val(folder, kind) if side == "val" else read_train(folder, kind)


def train_rows(folder: Path, kind: str) -> Iterator[pl.DataFrame]:
    """The train side in shuffled order, a bucket at a time."""
    for bucket in train_buckets(folder, kind):
        yield bucket.read()
