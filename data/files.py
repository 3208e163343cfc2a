"""Arrow and raw record files, read a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
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


def read_batches(path: Path) -> Iterator[pl.DataFrame]:
    """Record batches of a file, one after another."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield pl.DataFrame(pl.from_arrow(reader.get_batch(number)))


def raw_records(path: Path, dtype: np.dtype[Any], width: int = 0) -> np.ndarray:
    """A file of raw records, memory-mapped: (N,), or (N, width)."""
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.zeros((0, width) if width else 0, dtype=dtype)
    records = np.memmap(path, dtype=dtype, mode="r")
    return records.reshape(-1, width) if width else records
