"""Buckets and slices of many nights in few files: the same rows, in the same order, read alike."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from data.duplicates.decide import NearDuplicateRules
from data.files import read_batches
from data.folding import schema_of
from data.rows.parts import KINDS
from data.sides import deal, folding
from data.sides.deal import add_sides
from data.sides.folding import fold_sides, fold_val
from data.sides.read import read_train, read_val, train_buckets, val_path, val_path_of, val_paths
from data.sides.slices import read_slices
from tests.data.corpus import RULES, Home, Piece, document, plain

EXACT_ONLY = NearDuplicateRules(threshold=None, drop=True)


@contextmanager
def two_homes() -> Iterator[tuple[Home, Home]]:
    """One whose sides are folded, and one whose are not."""
    with TemporaryDirectory() as folder:
        yield tuple(Home(Path(folder) / name, EXACT_ONLY, RULES) for name in ("folded", "plain"))  # type: ignore[misc]


def add_night(its: Home, pieces: list[Piece], fold: bool) -> None:
    its.folder.mkdir(exist_ok=True)
    fresh, number = its.add(*pieces), len(its.ledger.generations) - 1
    add_sides(its.ledger, number, fresh, its.rules, its.folder, 1)
    if fold:
        fold_sides(its.folder, number)


def pieces_of(generator: random.Random, sizes: list[int]) -> list[Piece]:
    return [
        Piece([plain(document(generator.randrange(10**9), 8)) for _ in range(size)], generator.choice(KINDS))
        for size in sizes
    ]


def everything(folder: Path, generations: int) -> list[object]:
    """What the readers of both sides say."""
    found: list[object] = [read_slices(folder)]
    for kind in KINDS:
        found += [read_train(folder, kind).rows(), read_val(folder, kind).rows()]
        found += [(bucket.place, bucket.num_bytes, bucket.read().rows()) for bucket in train_buckets(folder, kind)]
        for number in range(generations):
            found.append([bucket.place for bucket in train_buckets(folder, kind, number)])
    return found


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.lists(st.sampled_from([0, 1, 5, 40]), max_size=5), min_size=1, max_size=7))
def test_folding_every_night_changes_no_row(seed: int, nights: list[list[int]]) -> None:
    generator = random.Random(seed)
    with two_homes() as homes, patch.object(deal, "BUCKET_BYTES", 1_000):
        for number, sizes in enumerate(nights, start=1):
            pieces = pieces_of(generator, sizes)
            for its, fold in zip(homes, (True, False), strict=True):
                add_night(its, pieces, fold)
            folded, unfolded = (everything(its.folder, number) for its in homes)
            assert folded == unfolded
        for kind in KINDS:
            for generation in range(len(nights)):
                paths = [val_path_of(its.folder, kind, generation) for its in homes]
                rows = [
                    {row for frame in read_batches(path) for row in frame["row"]} if path else set() for path in paths
                ]
                assert rows[1] <= rows[0]
                assert not rows[1] or val_path(homes[1].folder, kind, generation).exists()


def test_forty_nights_leave_few_files() -> None:
    generator = random.Random(3)
    with two_homes() as (its, _):
        for night in range(40):
            add_night(its, pieces_of(generator, [6, 3, 2]), True)
            files = Counter(".".join(path.name.split(".")[:2]) for path in its.folder.glob("*.arrow"))
            assert all(number <= 6 + 2 * night.bit_length() for number in files.values())
        assert len(train_buckets(its.folder, "pretrain")) > 30, "each night's is still read by itself"


def test_a_kind_and_side_without_new_rows_is_left_alone() -> None:
    with (
        two_homes() as (its, _),
        patch.object(folding, "number_folded", lambda sizes, _: len(sizes) if sizes[1:] else 0),
    ):
        for night in range(3):
            add_night(its, [Piece([plain(document(100 * night + n, 8)) for n in range(20)])], False)
        names = {path.name for path in its.folder.glob("*.arrow")}
        add_night(its, [Piece([plain(document(500 + n, 8)) for n in range(20)], "chat")], True)
        assert names < {path.name for path in its.folder.glob("*.arrow")}


def test_files_of_another_schema_are_not_joined(tmp_path: Path) -> None:
    """Slices once had no names in the file."""
    for number in range(4):
        frame = pl.DataFrame({"row": [number], "slice": ["a"]})
        frame = frame.drop("slice") if number < 2 else frame
        frame.write_ipc(val_path(tmp_path, "chat", number), compat_level=pl.CompatLevel.oldest())
    fold_val(tmp_path, "chat")
    paths = val_paths(tmp_path, "chat")
    assert [path.name for path in paths] == [
        "chat.val.g0000.arrow", "chat.val.g0001.arrow", "chat.val.g0002-g0003.arrow"
    ]  # fmt: skip
    assert schema_of(paths[-1]).names == ["row", "slice"]
    assert [val_path_of(tmp_path, "chat", number) for number in range(5)] == [
        paths[0],
        paths[1],
        paths[2],
        paths[2],
        None,
    ]
