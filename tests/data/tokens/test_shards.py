"""Packed rows come back from their files as they were, unread until they are asked for, and others read them too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from data.tokens.shards import (
    NAMES,
    SEGMENTS,
    open_segments,
    open_shard,
    open_shards,
    segments_frame,
    shard_paths,
    write_shard,
)
from model.tokens.packing import IGNORED, PackedTokens, Packing, Segments, pack

CAPACITY = 16
quick = settings(max_examples=15)
lengths = st.lists(st.integers(1, CAPACITY), max_size=12)


def packing_of(lengths: list[int], seed: int = 0) -> Packing:
    rng, size = np.random.default_rng(seed), sum(lengths)
    labels = rng.choice([IGNORED, 70, 99_999], size).astype(np.int32)
    ids = rng.integers(8, 1 << 16, size)
    return pack(Segments(ids, labels, np.array(lengths, dtype=np.int64), np.arange(len(lengths))), CAPACITY)


def table_of(packing: Packing, first_document: int = 0) -> pl.DataFrame:
    owners = packing.segments.owners
    sources = pl.Series([f"source-{number % 3}" for number in owners], dtype=pl.String)
    domains = pl.Series([f"domain-{number % 2}" for number in owners], dtype=pl.String)
    documents = owners + first_document
    return segments_frame(packing.rows, packing.starts, packing.segments.lengths, documents, sources, domains)


def written(path: Path, lengths: list[int], seed: int = 0, dtype: type = np.uint16) -> tuple[PackedTokens, Packing]:
    path.parent.mkdir(exist_ok=True)
    packing = packing_of(lengths, seed)
    packed = packing.fill_rows(CAPACITY, 0, dtype)
    write_shard(path, packed, table_of(packing, first_document=100 * seed))
    return packed, packing


def arrays_of(tokens: PackedTokens) -> dict[str, np.ndarray]:
    return {name: getattr(tokens, name) for name in ("input_ids", "labels", "segment_ids")}


def check_equal(found: PackedTokens, expected: PackedTokens) -> None:
    for name, array in arrays_of(expected).items():
        assert arrays_of(found)[name].dtype == array.dtype
        assert arrays_of(found)[name].shape == array.shape
        assert (arrays_of(found)[name] == array).all()


@quick
@given(lengths, st.integers(0, 99), st.sampled_from([np.uint16, np.uint32]))
def test_rows_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], seed: int, dtype: type
) -> None:
    path = tmp_path_factory.mktemp("shard") / "chat.train.g0000.b0000"
    packed, packing = written(path, lengths, seed, dtype)
    check_equal(open_shard(Path(f"{path}.arrow")), packed)
    table = pl.read_parquet(f"{path}.segments.parquet")
    assert dict(table.schema) == SEGMENTS
    assert_frame_equal(table, table_of(packing, first_document=100 * seed))


@quick
@given(lengths)
def test_the_table_says_of_each_segment_where_it_lies(lengths: list[int]) -> None:
    packing = packing_of(lengths)
    columns = packing.rows.tolist(), packing.starts.tolist(), lengths
    expected = sorted(
        (row, start, length, number, f"source-{number % 3}", f"domain-{number % 2}")
        for number, (row, start, length) in enumerate(zip(*columns, strict=True))
    )
    assert table_of(packing).rows() == expected


def test_rows_are_mapped_not_read(tmp_path: Path) -> None:
    """What is written to the file afterwards shows in the rows that were opened before."""
    packed, _ = written(tmp_path / "chat.train.0", [CAPACITY, 3, 9, 9])
    path = tmp_path / "chat.train.0.arrow"
    opened = open_shard(path)
    assert opened.labels.any()
    for array in arrays_of(packed).values():
        place = path.read_bytes().index(array.tobytes())
        with path.open("r+b") as stream:
            stream.seek(place)
            stream.write(bytes(array.nbytes))
    assert not any(array.any() for array in arrays_of(opened).values())


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("lengths", [[CAPACITY, 3, 9, 9], []])
def test_datasets_opens_the_file(tmp_path: Path, lengths: list[int], dtype: type) -> None:
    import datasets

    packed, _ = written(tmp_path / "chat.train.0", lengths, dtype=dtype)
    table = datasets.Dataset.from_file(str(tmp_path / "chat.train.0.arrow"))
    assert table.column_names == list(arrays_of(packed))
    assert len(table) == packed.num_rows
    for name, array in arrays_of(packed).items():
        assert table[:][name] == array.tolist()


def three_shards(folder: Path) -> list[PackedTokens]:
    """One of them holds nothing."""
    made = [[9, 9, 9], [], [16, 5, 5, 5, 5]]
    return [written(folder / f"chat.train.g0000.b{n:04d}", lengths, seed=n)[0] for n, lengths in enumerate(made)]


def test_shards_of_a_side_are_one_and_those_of_others_are_left_out(tmp_path: Path) -> None:
    shards = three_shards(tmp_path)
    written(tmp_path / "chat.val.all", [7])
    written(tmp_path / "pretrain.train.g0000.b0000", [7])
    names = [path.name for path in shard_paths(tmp_path, "chat", "train")]
    assert names == ["chat.train.g0000.b0000", "chat.train.g0000.b0001", "chat.train.g0000.b0002"]
    opened = open_shards(tmp_path, "chat", "train", "fingerprint")
    whole = PackedTokens(
        *(np.concatenate(arrays) for arrays in zip(*(arrays_of(s).values() for s in shards), strict=True)), ""
    )
    check_equal(opened.rows(np.arange(opened.num_rows)), whole)
    assert (opened.fingerprint, opened.sequence_length_tokens) == ("fingerprint", CAPACITY)


def test_segments_name_rows_as_the_opened_shards_number_them(tmp_path: Path) -> None:
    three_shards(tmp_path)
    opened = open_shards(tmp_path, "chat", "train", "")
    whole = opened.rows(np.arange(opened.num_rows))
    covered = np.zeros(whole.segment_ids.shape, dtype=int)
    table = open_segments(tmp_path, "chat", "train")
    for row, start, length, document, source, domain in table.rows():
        where = row, slice(start, start + length)
        [number] = set(whole.segment_ids[where].tolist())
        assert number == covered[row].max() + 1
        covered[where] = number
        assert source == f"source-{document % 100 % 3}"
        assert domain == f"domain-{document % 100 % 2}"
    assert (covered == whole.segment_ids).all()
    assert sorted(table["document"]) == [0, 1, 2, 200, 201, 202, 203, 204]
    assert table.schema == pl.Schema(SEGMENTS | dict.fromkeys(NAMES, pl.String))


def test_no_shards_have_no_segments(tmp_path: Path) -> None:
    assert open_segments(tmp_path, "chat", "train").schema == pl.Schema(SEGMENTS | dict.fromkeys(NAMES, pl.String))
    assert open_shards(tmp_path, "chat", "train", "").num_rows == 0
