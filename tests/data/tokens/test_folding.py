"""Shards of many nights as few: the same rows under the same numbers."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.tokens.folding import fold_shards, shard_name, span_of
from data.tokens.shards import (
    LOST,
    lost_path,
    open_segments,
    open_shards,
    segments_frame,
    shard_paths,
    write_lost,
    write_shard,
)
from model.tokens.packing import PackedTokens

SLOTS = 4


def write_night(folder: Path, generation: int, rows: int, bucket: int = 0) -> None:
    """A shard of so many packed rows, each of one segment, and a lost answer."""
    path = folder / shard_name("chat", (generation, bucket))
    ids = np.full((rows, SLOTS), generation, dtype=np.uint16)
    ids[:, 0] = np.arange(rows)
    numbers, zeros = np.arange(rows), np.zeros(rows, dtype=np.int64)
    segments = segments_frame(
        numbers,
        zeros,
        zeros + SLOTS,
        zeros + 100 * generation + numbers,
        [f"source {generation % 2}"] * rows,
        [f"domain {generation % 3}"] * rows,
    )
    packed = PackedTokens(ids, ids.astype(np.int32), np.ones((rows, SLOTS), dtype=np.uint16), "")
    write_shard(path, packed, segments)
    write_lost(path, *(np.array([value]) for value in (generation, 1, 9, 8)))


def everything(folder: Path) -> tuple[list[list[int]], list[tuple[object, ...]], list[tuple[object, ...]]]:
    """All packed rows, all segments and all lost answers, in order."""
    shards = open_shards(folder, "chat", "train", "").shards
    rows = [row for shard in shards for row in shard.input_ids.tolist()]
    lost = [pl.read_parquet(lost_path(path)) for path in shard_paths(folder, "chat", "train")]
    frame = pl.concat(lost) if lost else pl.DataFrame(schema=LOST)
    return rows, open_segments(folder, "chat", "train").rows(), frame.sort("document").rows()


@settings(max_examples=12, deadline=None)
@given(nights=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=2), min_size=1, max_size=9))
def test_folding_every_night_changes_no_row_and_no_number(
    tmp_path_factory: pytest.TempPathFactory, nights: list[list[int]]
) -> None:
    plain, folded = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("folded")
    for generation, buckets in enumerate(nights):
        for folder in (plain, folded):
            for bucket, rows in enumerate(buckets):
                write_night(folder, generation, rows, bucket)
        fold_shards(folded, "chat")
        assert everything(folded) == everything(plain)
    spans = [span_of(path) for path in shard_paths(folded, "chat", "train")]
    assert spans == sorted(spans)
    assert all(one[1] < other[0] for one, other in pairwise(spans))


def test_a_hundred_nights_leave_few_shards(tmp_path: Path) -> None:
    for generation in range(100):
        write_night(tmp_path, generation, 2)
        fold_shards(tmp_path, "chat")
    assert len(shard_paths(tmp_path, "chat", "train")) <= 7
    assert len(list(os.scandir(tmp_path))) == 3 * len(shard_paths(tmp_path, "chat", "train"))
