"""No token is lost and none gained, masks hold, and rows are as full as a slow search finds."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tokens.packing import (
    IGNORED,
    SLACK_SHARES,
    PackedTokens,
    Segments,
    ShardedTokens,
    best_fit_decreasing,
    cut,
    document_segments,
    pack,
    pack_documents,
)
from tests.model.tiny import packed_rows
from tests.reference.packing import (
    document_slots,
    lengths_of_pieces,
    loads_of_best_fit,
    occupied_slots,
    slots_of,
)

END_OF_TEXT, PADDING = 0, 7
CAPACITY = 20
WORD, SENTENCE_END, LINE_END = 1, 2, 3
RANKS = np.array([0, 0, 1, 2], dtype=np.uint8)
PLAIN = np.zeros(100_000, dtype=np.uint8)

lengths_that_fit = st.lists(st.one_of(st.integers(1, 3), st.integers(1, CAPACITY)), max_size=40)
texts = st.lists(st.lists(st.integers(1, 99), max_size=70), max_size=8)
marked = st.lists(st.sampled_from([WORD] * 8 + [SENTENCE_END] * 2 + [LINE_END]), max_size=120)


def documents(texts: list[list[int]], dtype: type[np.unsignedinteger] = np.uint32) -> Segments:
    ids = np.array([token for text in texts for token in text], dtype=dtype)
    return document_segments(ids, np.array([0, *accumulate(map(len, texts))]), END_OF_TEXT)


def segments_of_lengths(lengths: list[int], seed: int) -> Segments:
    rng, size = np.random.default_rng(seed), sum(lengths)
    labels = rng.choice([IGNORED, 70, 99_999], size).astype(np.int32)
    return Segments(rng.integers(8, 100_000, size), labels, np.array(lengths, dtype=np.int64), np.arange(len(lengths)))


@given(texts)
def test_a_document_reads_end_of_text_first_and_predicts_it_last(texts: list[list[int]]) -> None:
    segments = documents(texts)
    assert slots_of(segments) == [document_slots(text, END_OF_TEXT) for text in texts]
    assert segments.owners.tolist() == list(range(len(texts)))
    assert segments.offsets.tolist() == [0, *accumulate(len(text) + 1 for text in texts)]


@given(st.lists(marked, max_size=5), st.integers(2, 40), st.sampled_from([*SLACK_SHARES, 0.5]))
def test_a_cut_comes_after_a_line_else_a_sentence_else_at_the_end_of_the_row(
    texts: list[list[int]], max_tokens: int, slack_share: float
) -> None:
    whole = documents(texts)
    pieces = cut(whole, max_tokens, RANKS, slack_share)
    expected = [
        lengths_of_pieces(labels, RANKS.tolist(), max_tokens, slack_share) for _, labels in slots_of(whole)
    ]  # fmt: skip
    assert pieces.lengths.tolist() == [length for lengths in expected for length in lengths]
    assert pieces.owners.tolist() == [owner for owner, lengths in enumerate(expected) for _ in lengths]
    assert pieces.inputs.tolist() == whole.inputs.tolist()
    assert pieces.labels.tolist() == whole.labels.tolist()


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ([WORD] * 13 + [LINE_END] + [WORD, SENTENCE_END] * 9, 14),
        ([WORD] * 12 + [LINE_END] + [WORD] * 19, 16),
        ([WORD] * 13 + [SENTENCE_END] + [WORD] * 19, 14),
        ([WORD] * 13 + [LINE_END, LINE_END] + [WORD] * 19, 15),
        ([WORD] * 15 + [LINE_END] + [WORD] * 19, 16),
        ([WORD] * 16 + [LINE_END] + [WORD] * 19, 16),
    ],
    ids=["line before sentence", "line too far", "sentence", "the last line", "at the end", "behind the end"],
)
def test_where_a_row_of_sixteen_with_a_slack_of_three_is_cut(text: list[int], first: int) -> None:
    assert cut(documents([text]), 16, RANKS, 3 / 16).lengths[0] == first


@given(texts, st.integers(1, 30))
def test_every_token_of_every_document_is_a_target_once(texts: list[list[int]], max_tokens: int) -> None:
    packing = pack_documents(documents(texts), max_tokens, PLAIN)
    packed = packing.fill_rows(max_tokens, PADDING, np.uint16)
    pieces_of: dict[int, list[tuple[list[int], list[int]]]] = {owner: [] for owner in range(len(texts))}
    placed = zip(packing.segments.owners, packing.rows, packing.starts, packing.segments.lengths, strict=True)
    for owner, row, start, length in placed:
        where = row, slice(start, start + length)
        pieces_of[owner].append((packed.input_ids[where].tolist(), packed.labels[where].tolist()))
    for owner, pieces in pieces_of.items():
        assert [label for _, labels in pieces for label in labels] == [*texts[owner], END_OF_TEXT]
        assert pieces[0][0][0] == END_OF_TEXT
        for (_, before), (inputs, _) in pairwise(pieces):
            assert inputs[0] == before[-1], "a piece reads the last token of the piece before"
    targets = packed.labels[packed.labels != IGNORED]
    assert Counter(targets.tolist()) == Counter([t for text in texts for t in [*text, END_OF_TEXT]])


@given(st.lists(marked, max_size=12), st.integers(4, 40))
def test_documents_are_cut_at_line_ends_as_long_as_rows_stay_full(texts: list[list[int]], max_tokens: int) -> None:
    segments, packing = documents(texts), pack_documents(documents(texts), max_tokens, RANKS)
    tries = [pack(cut(segments, max_tokens, RANKS, share), max_tokens) for share in SLACK_SHARES]
    uncut = [t for t in tries if len(t.segments.lengths) == len(texts)]
    good = [t for t in tries if t.fill(max_tokens) >= 0.99]
    assert packing.segments.lengths.tolist() == (uncut or good or tries[-1:])[0].segments.lengths.tolist()


def test_a_little_padding_is_borne_for_whole_lines_and_more_is_not() -> None:
    lines = [WORD] * 61 + [LINE_END]
    fillers = [[WORD]] * 99
    good, poor = (pack_documents(documents([lines * 40, *more]), 64, RANKS) for more in (fillers, []))
    assert good.segments.lengths[:40].tolist() == [62] * 39 + [63], "fillers close the gaps"
    assert good.fill(64) >= 0.99
    assert max(poor.segments.lengths) == 64, "cut at line ends alone, rows would be 62 of 64 full"


@given(lengths_that_fit)
def test_segments_lie_whole_in_rows_without_overlap(lengths: list[int]) -> None:
    rows, starts = best_fit_decreasing(np.array(lengths, dtype=np.int64), CAPACITY)
    owner = occupied_slots(rows.tolist(), starts.tolist(), lengths)
    assert Counter(owner.values()) == dict(enumerate(lengths))
    assert all(0 <= slot < CAPACITY for _, slot in owner)
    assert {row for row, _ in owner} == set(range(len({row for row, _ in owner})))


@given(lengths_that_fit)
def test_rows_are_as_full_as_a_scan_of_all_rows_finds(lengths: list[int]) -> None:
    rows, _ = best_fit_decreasing(np.array(lengths, dtype=np.int64), CAPACITY)
    loads = np.bincount(rows, lengths, minlength=0).astype(int)
    assert sorted(loads.tolist()) == loads_of_best_fit(lengths, CAPACITY)


def test_of_equally_full_rows_the_one_filled_last_is_taken() -> None:
    rows, starts = best_fit_decreasing(np.array([5, 12, 3, 15, 8, 12, 8, 5]), CAPACITY)
    assert list(zip(rows.tolist(), starts.tolist(), strict=True)) == [
        (0, 15), (1, 0), (3, 5), (0, 0), (2, 12), (2, 0), (1, 12), (3, 0)
    ]  # fmt: skip


def test_a_segment_longer_than_a_row_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="a segment has 21 tokens, a row only 20"):
        best_fit_decreasing(np.array([3, 21, 5]), CAPACITY)


@given(lengths_that_fit, st.integers(0, 999))
def test_rows_give_back_every_segment_and_nothing_else(lengths: list[int], seed: int) -> None:
    segments = segments_of_lengths(lengths, seed)
    packing = pack(segments, CAPACITY)
    packed = packing.fill_rows(CAPACITY, PADDING, np.uint32)
    dtypes = packed.input_ids.dtype, packed.labels.dtype, packed.segment_ids.dtype
    assert dtypes == (np.uint32, np.int32, np.uint16)
    assert packed.input_ids.shape == packed.labels.shape == packed.segment_ids.shape == (packing.num_rows, CAPACITY)
    numbers: dict[int, list[tuple[int, int]]] = {}
    placed = zip(packing.rows.tolist(), packing.starts.tolist(), lengths, slots_of(segments), strict=True)
    for row, start, length, (inputs, labels) in placed:
        where = row, slice(start, start + length)
        assert packed.input_ids[where].tolist() == inputs, "ids above 65,535 too"
        assert packed.labels[where].tolist() == labels
        (number,) = set(packed.segment_ids[where].tolist())
        numbers.setdefault(row, []).append((start, number))
    for placed in numbers.values():
        assert [number for _, number in sorted(placed)] == list(range(1, len(placed) + 1)), "in order of start"
    empty = np.ones(packed.input_ids.shape, dtype=bool)
    for row, slot in occupied_slots(packing.rows.tolist(), packing.starts.tolist(), lengths):
        empty[row, slot] = False
    assert (packed.input_ids[empty] == PADDING).all()
    assert (packed.labels[empty] == IGNORED).all()
    assert (packed.segment_ids[empty] == 0).all()
    assert packing.fill(CAPACITY) == (~empty).sum() / max(1, empty.size)


def test_no_documents_make_no_rows() -> None:
    packing = pack_documents(documents([]), CAPACITY, PLAIN)
    packed = packing.fill_rows(CAPACITY, PADDING, np.uint16)
    assert packing.fill(CAPACITY) == packing.num_rows == packed.num_rows == 0
    assert packed.sequence_length_tokens == CAPACITY


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.data())
def test_shards_read_as_their_concatenation(sizes: list[int], data: st.DataObject) -> None:
    shards = tuple(packed_rows(num_rows=size, seed=seed) for seed, size in enumerate(sizes))
    sharded = ShardedTokens(shards, "all")
    whole = [np.concatenate(arrays) for arrays in zip(*map(arrays_of, shards), strict=True)]
    assert (sharded.num_rows, sharded.sequence_length_tokens) == whole[0].shape
    indexes = st.lists(st.integers(0, max(0, sum(sizes) - 1)), max_size=12 if sum(sizes) else 0)
    numbers = np.array(data.draw(indexes), dtype=np.int64)
    taken = sharded.rows(numbers)
    for array, expected in zip(arrays_of(taken), whole, strict=True):
        assert array.dtype == expected.dtype
        assert array.shape == expected[numbers].shape
        assert (array == expected[numbers]).all()
    assert taken.fingerprint == "all"


def arrays_of(tokens: PackedTokens) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tokens.input_ids, tokens.labels, tokens.segment_ids
