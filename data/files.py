"""Arrow and raw record files, read a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

COMPRESSION = "lz4"


def to_arrow(frame: pl.DataFrame) -> pa.Table:
    """With the types that every reader of Arrow knows."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def arrow_writer(path: Path, schema: pa.Schema, compression: str | None = COMPRESSION) -> pa.ipc.RecordBatchFileWriter:
    return pa.ipc.new_file(str(path), schema, options=pa.ipc.IpcWriteOptions(compression=compression))


@dataclass(frozen=True)
class Batches:
    """Some record batches of an Arrow file, or all of them."""

    path: Path
    first: int = 0
    count: int | None = None
    """None: to the end of the file."""

    def read(self) -> Iterator[pl.DataFrame]:
        """One after another."""
        with pa.memory_map(str(self.path)) as source:
            reader = pa.ipc.open_file(source)
            last = reader.num_record_batches if self.count is None else self.first + self.count
            for number in range(self.first, last):
                yield pl.DataFrame(pl.from_arrow(reader.get_batch(number)))


def read_batches(path: Path) -> Iterator[pl.DataFrame]:
    """Record batches of a file, one after another."""
    return Batches(path).read()


def schema_of(path: Path) -> pa.Schema:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).schema


def num_batches(path: Path) -> int:
    with pa.memory_map(str(path)) as source:
        return int(pa.ipc.open_file(source).num_record_batches)


def num_of_one_schema(paths: Sequence[Path]) -> int:
    """How many of the last files have the schema of the last one: those that can be joined."""
    newest = schema_of(paths[-1]) if paths else None
    return next((n for n, path in enumerate(reversed(paths)) if not schema_of(path).equals(newest)), len(paths))


def join_arrow(paths: Sequence[Path], into: Path, metadata: Mapping[bytes, bytes] | None = None) -> None:
    """Write the record batches of files of one schema into a new file, in order."""
    with arrow_writer(into, schema_of(paths[0]).with_metadata(metadata)) as writer:
        for path in paths:
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_file(source)
                for number in range(reader.num_record_batches):
                    writer.write_batch(reader.get_batch(number))


def raw_records(path: Path, dtype: np.dtype[Any], width: int = 0) -> np.ndarray:
    """A file of raw records, memory-mapped: (N,), or (N, width)."""
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.zeros((0, width) if width else 0, dtype=dtype)
    records = np.memmap(path, dtype=dtype, mode="r")
    return records.reshape(-1, width) if width else records
