"""Files of many nights put together, so that how many are opened does not follow the number of nights.

Neighbours alone are joined, whole and in order, so whatever is numbered through them keeps its number. A file is joined
with all after it once they are as large together, as a binary counter carries: each is then larger than all after it,
N nights of one size leave at most 1 + log2(N) files, and each byte is written again at most 1 + log2(N) times. What was
joined to nearly `full_bytes` is left alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from data.files import arrow_writer


def number_folded(sizes: Sequence[int], full_bytes: int) -> int:
    """How many of the last files become one, by the bytes of each; 0 if they stay as they are.

    full_bytes: what a joined file holds at most.
    """
    total, number = 0, 0
    for place, size in enumerate(reversed(sizes)):
        if place and total + size > full_bytes:
            break
        if place and size <= total:
            number = place + 1
        total += size
    return number


def join_bytes(paths: Sequence[Path], into: Path) -> None:
    """Write the bytes of some files one after another into a new one."""
    with into.open("xb") as joined:
        for path in paths:
            with path.open("rb") as stream:
                shutil.copyfileobj(stream, joined, 1 << 20)


@dataclass(frozen=True)
class Batches:
    """Some record batches of an Arrow file, or all of them."""

    path: Path
    first: int = 0
    count: int | None = None
    """None: to the end of the file."""

    @property
    def number(self) -> int:
        """How many there are."""
        if self.count is not None:
            return self.count
        with pa.memory_map(str(self.path)) as source:
            return int(pa.ipc.open_file(source).num_record_batches) - self.first

    def records(self) -> Iterator[pa.RecordBatch]:
        """One after another; no other one is read."""
        with pa.memory_map(str(self.path)) as source:
            reader = pa.ipc.open_file(source)
            for number in range(self.first, self.first + self.number):
                yield reader.get_batch(number)

    def read(self) -> Iterator[pl.DataFrame]:
        return (pl.DataFrame(pl.from_arrow(batch)) for batch in self.records())


def schema_of(path: Path) -> pa.Schema:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).schema


def num_of_one_schema(paths: Sequence[Path]) -> int:
    """How many of the last files have the schema of the last one: those that can be joined."""
    newest = schema_of(paths[-1]) if paths else None
    return next((n for n, path in enumerate(reversed(paths)) if not schema_of(path).equals(newest)), len(paths))


def join_arrow(files: Sequence[Batches], into: Path, metadata: Mapping[bytes, bytes] | None = None) -> None:
    """Write record batches of files of one schema into a new file, in order."""
    with arrow_writer(into, schema_of(files[0].path).with_metadata(metadata)) as writer:
        for file in files:
            for batch in file.records():
                writer.write_batch(batch)
