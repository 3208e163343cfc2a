"""Packed rows on disk: Arrow streams that `datasets` opens and memory maps read, and which document is where."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from model.tokens.packing import PackedTokens, ShardedTokens


def num_packed_rows(path: Path) -> int:
    """Rows of a shard, given without suffix."""
    with pa.memory_map(f"{path}.arrow") as source:
        return int(pa.ipc.open_stream(source).read_next_batch().num_rows)


SEGMENTS = {
    "row": pl.UInt32, "start": pl.UInt16, "length": pl.UInt16, "document": pl.UInt32,
    "source": pl.Categorical, "domain": pl.Categorical,
}  # fmt: skip
"""Where a segment lies and whose it is; `document` is the number of a row of the corpus."""
NAMES = ("source", "domain")
"""Columns of names, categories in the files and strings where tables of many files are joined."""


LOST = {"document": pl.UInt32, "answer": pl.UInt32, "tokens": pl.UInt32, "needed": pl.UInt32}
"""An answer that is in no packed row: whose it is, its number in the conversation, its ids, and the slots it needs."""


def lost_path(path: Path) -> Path:
    """Beside a shard, given without suffix. Its name is none of a kind's, whose files decide what is trained anew."""
    return path.with_name(f"lost.{path.name}.parquet")


def write_lost(path: Path, documents: np.ndarray, number: np.ndarray, tokens: np.ndarray, needed: np.ndarray) -> None:
    """Answers of a shard, given without suffix, that are in none of its rows."""
    columns = {"document": documents, "answer": number, "tokens": tokens, "needed": needed}
    frame = pl.DataFrame(columns, schema_overrides=LOST).sort("document", "answer")
    frame.write_parquet(lost_path(path), compression="lz4")


def write_shard(path: Path, tokens: PackedTokens, segments: pl.DataFrame) -> None:
    """`<path>.arrow`, a stream of one record batch of fixed-size lists, and `<path>.segments.parquet`."""
    columns = {
        column: pa.FixedSizeListArray.from_arrays(flat_array(array), tokens.sequence_length_tokens)
        for column, array in arrays_of(tokens).items()
    }
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    with pa.OSFile(f"{path}.arrow", "wb") as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    segments.write_parquet(f"{path}.segments.parquet", compression="lz4")


def flat_array(array: np.ndarray) -> pa.Array:
    """All values as one Arrow array over the same memory; `pa.array` would import pandas, a second in each worker."""
    buffer = pa.py_buffer(np.ascontiguousarray(array))
    return pa.Array.from_buffers(pa.from_numpy_dtype(array.dtype), array.size, [None, buffer])


def arrays_of(tokens: PackedTokens) -> dict[str, np.ndarray]:
    return {"input_ids": tokens.input_ids, "labels": tokens.labels, "segment_ids": tokens.segment_ids}


def open_shard(path: Path, fingerprint: str = "") -> PackedTokens:
    """The rows of one `.arrow` file, memory-mapped."""
    batch = pa.ipc.open_stream(pa.memory_map(str(path))).read_next_batch()
    input_ids, labels, segment_ids = (
        column.flatten().to_numpy().reshape(batch.num_rows, column.type.list_size) for column in batch.columns
    )
    return PackedTokens(input_ids, labels, segment_ids, fingerprint)


def shard_paths(folder: Path, kind: str, side: str) -> list[Path]:
    """Shards of one side in order, without suffix."""
    begin, end = f"{kind}.{side}.", ".arrow"
    names = (entry.name for entry in os.scandir(folder))  # a glob takes four times as long over thousands of files
    return [folder / name.removesuffix(end) for name in sorted(names) if name.startswith(begin) and name.endswith(end)]


def open_shards(folder: Path, kind: str, side: str, fingerprint: str) -> ShardedTokens:
    """All packed rows of one side."""
    paths = shard_paths(folder, kind, side)
    return ShardedTokens(tuple(open_shard(Path(f"{path}.arrow")) for path in paths), fingerprint)


def open_segments(folder: Path, kind: str, side: str) -> pl.DataFrame:
    """SEGMENTS of one side, rows numbered as in `open_shards`."""
    frames, base = [], 0
    for path in shard_paths(folder, kind, side):
        frame = pl.read_parquet(f"{path}.segments.parquet").with_columns(pl.col(NAMES).cast(pl.String))
        frames.append(frame.with_columns(pl.col("row").cast(pl.UInt32) + base))
        base += int(frame["row"][-1]) + 1 if len(frame) else 0
    return pl.concat(frames) if frames else pl.DataFrame(schema=SEGMENTS | dict.fromkeys(NAMES, pl.String))


def segments_frame(
    rows: np.ndarray, starts: np.ndarray, lengths: np.ndarray, documents: np.ndarray,
    sources: Sequence[str] | pl.Series, domains: Sequence[str] | pl.Series,
) -> pl.DataFrame:  # fmt: skip
    """SEGMENTS in order of row and start."""
    frame = pl.DataFrame(
        dict(zip(SEGMENTS, (rows, starts, lengths, documents, sources, domains), strict=True)),
        schema_overrides=SEGMENTS,
        strict=False,
    )
    return frame.sort("row", "start")
