"""Shards of many nights folded (`data.folding`): packed rows keep their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from data.folding import number_folded
from data.sides.read import Place, place_name
from data.tokens.shards import (
    LOST,
    NAMES,
    lost_path,
    num_packed_rows,
    open_shard,
    segments_frame,
    shard_paths,
    write_lost,
    write_shard,
)
from model.tokens.packing import PackedTokens

FULL_BYTES = 32 << 20
"""Of a shard's packed rows: about what a full bucket becomes."""


def shard_name(kind: str, first: Place, last: Place | None = None) -> str:
    """Of the packed rows of a bucket of the train side, or of all from one to another, both included.

    Names sort as their rows stand.
    """
    return f"{kind}.train.{'-'.join(map(place_name, (first, *([last] if last else []))))}"


def span_of(shard: Path) -> tuple[Place, Place]:
    """The first and the last bucket whose rows are in a shard, given without suffix."""
    words = shard.name.split(".train.")[1].split("-")
    places = [tuple(int(part[1:]) for part in word.split(".")) for word in words]
    return (places[0][0], places[0][1]), (places[-1][0], places[-1][1])


def is_folded(shard: Path) -> bool:
    return "-" in shard.name


def fold_shards(folder: Path, kind: str) -> Path | None:
    """Join the newest shards of a kind's train side; the new shard without suffix, or None if none was joined.

    Call it in a folder that nobody reads yet, and only if rows of the kind are new in it: whatever depends on these
    files is done anew then in any case.
    """
    paths = shard_paths(folder, kind, "train")
    number = number_folded([Path(f"{path}.arrow").stat().st_size for path in paths], FULL_BYTES)
    if not number:
        return None
    some = paths[-number:]
    joined = folder / shard_name(kind, span_of(some[0])[0], span_of(some[-1])[1])
    write_shard(joined, joined_rows(some), joined_segments(some))
    lost = [path for path in map(lost_path, some) if path.exists()]
    if lost:
        frame = pl.concat([pl.read_parquet(path) for path in lost])
        write_lost(joined, *(frame[column].to_numpy() for column in LOST))
    for path in some:
        for file in (Path(f"{path}.arrow"), Path(f"{path}.segments.parquet"), lost_path(path)):
            file.unlink(missing_ok=True)
    return joined


def joined_rows(paths: Sequence[Path]) -> PackedTokens:
    shards = [open_shard(Path(f"{path}.arrow")) for path in paths]
    return PackedTokens(
        input_ids=np.concatenate([shard.input_ids for shard in shards]),
        labels=np.concatenate([shard.labels for shard in shards]),
        segment_ids=np.concatenate([shard.segment_ids for shard in shards]),
        fingerprint="",
    )


def joined_segments(paths: Sequence[Path]) -> pl.DataFrame:
    base, frames = 0, []
    for path in paths:
        frame = pl.read_parquet(f"{path}.segments.parquet")
        rows = pl.col("row").cast(pl.Int64) + base
        frames.append(frame.with_columns(rows, pl.col(NAMES).cast(pl.String)))
        base += num_packed_rows(path)
    every = pl.concat(frames)
    row, start, length, document = (every[name].to_numpy() for name in ("row", "start", "length", "document"))
    return segments_frame(row, start, length, document, every["source"], every["domain"])
