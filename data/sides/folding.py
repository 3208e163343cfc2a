"""Files of both sides folded (`data.folding`): buckets and slices hold the same rows in the same order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from data.folding import Batches, join_arrow, num_of_one_schema, number_folded
from data.rows.parts import KINDS
from data.sides.read import FOLDED, Bucket, place_name, train_buckets, val_path, val_paths, val_span

FULL_BYTES = 1 << 28
"""Of a file's record batches, compressed."""


def fold_sides(folder: Path, generation: int) -> None:
    """Join the newest files of each kind and side of which the generation has rows.

    Call it in a folder that nobody reads yet, right after the generation was added: whatever depends on these files is
    done anew then in any case.
    """
    for kind in KINDS:
        if train_buckets(folder, kind, generation):
            fold_train(folder, kind)
        if val_path(folder, kind, generation).exists():
            fold_val(folder, kind)


def files_of(buckets: Sequence[Bucket]) -> list[Path]:
    return list(dict.fromkeys(file.path for bucket in buckets for file in bucket.files))


def fold_train(folder: Path, kind: str) -> None:
    """Join the newest buckets of a kind; each is still read by itself."""
    every = train_buckets(folder, kind)
    groups = [list(same) for _, same in groupby(every, key=lambda b: b.files[0].path if b.is_folded else b.place)]
    groups = groups[len(groups) - num_of_one_schema([files_of(group)[0] for group in groups]) :]
    number = number_folded([sum(bucket.num_bytes for bucket in group) for group in groups], FULL_BYTES)
    if not number:
        return
    buckets = [bucket for group in groups[-number:] for bucket in group]
    table = [(*bucket.place, sum(file.number for file in bucket.files), bucket.num_bytes) for bucket in buckets]
    into = folder / f"{kind}.train.{place_name(buckets[0].place)}-{place_name(buckets[-1].place)}.arrow"
    join_arrow(list(map(Batches, files_of(buckets))), into, {FOLDED: json.dumps(table).encode()})
    for path in files_of(buckets):
        path.unlink()


def fold_val(folder: Path, kind: str) -> None:
    """Join the newest validation rows of a kind."""
    paths = val_paths(folder, kind)
    paths = paths[len(paths) - num_of_one_schema(paths) :]
    number = number_folded([path.stat().st_size for path in paths], FULL_BYTES)
    if number:
        some = paths[-number:]
        join_arrow(
            list(map(Batches, some)),
            folder / f"{kind}.val.g{val_span(some[0])[0]:04d}-g{val_span(some[-1])[1]:04d}.arrow",
        )
        for path in some:
            path.unlink()
