from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.chat import Segment
from model.config import IGNORED
from model.packing import best_fit_decreasing, document_segments, fill_rows
from tests.reference.packing import occupied_slots, scanned_best_fit

END_OF_TEXT, PADDING = 0, 7
CAPACITY = 20
lengths_that_fit = st.lists(st.one_of(st.integers(1, 3), st.integers(1, CAPACITY)), max_size=40)


@given(st.lists(st.integers(1, 99), max_size=40), st.integers(1, 12))
def test_every_token_of_a_document_is_predicted_once_and_its_end_last(ids: list[int], max_tokens: int) -> None:
    segments = document_segments(ids, END_OF_TEXT, max_tokens)
    assert [label for segment in segments for label in segment.labels.tolist()] == [*ids, END_OF_TEXT]
    assert [token for segment in segments for token in segment.inputs.tolist()] == [END_OF_TEXT, *ids]
    assert all(len(segment) == max_tokens for segment in segments[:-1])
    assert 1 <= len(segments[-1]) <= max_tokens


@given(lengths_that_fit)
def test_segments_lie_whole_in_rows_without_overlap(lengths: list[int]) -> None:
    placements = best_fit_decreasing(lengths, CAPACITY)
    assert sorted(placement.segment for placement in placements) == list(range(len(lengths)))
    owner = occupied_slots(placements)
    assert Counter(owner.values()) == dict(enumerate(lengths))
    assert all(0 <= slot < CAPACITY for _, slot in owner)
    assert {row for row, _ in owner} == set(range(len({row for row, _ in owner})))


@settings(max_examples=200)
@given(lengths_that_fit)
def test_packing_equals_a_scan_of_all_rows(lengths: list[int]) -> None:
    assert best_fit_decreasing(lengths, CAPACITY) == scanned_best_fit(lengths, CAPACITY)


def test_the_fullest_row_that_fits_is_taken() -> None:
    placements = best_fit_decreasing([5, 12, 3, 15, 8], CAPACITY)
    assert {placement.segment: (placement.row, placement.start) for placement in placements} == {
        3: (0, 0), 1: (1, 0), 4: (1, 12), 0: (0, 15), 2: (2, 0),
    }  # fmt: skip


def test_a_segment_longer_than_a_row_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="a segment has 21 tokens, a row only 20"):
        best_fit_decreasing([3, 21, 5], CAPACITY)


@given(lengths_that_fit, st.integers(0, 999))
def test_rows_give_back_every_segment_and_nothing_else(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    segments = [Segment(rng.integers(8, 65_536, n), rng.choice([IGNORED, 70, 65_535], n)) for n in lengths]
    placements = best_fit_decreasing(lengths, CAPACITY)
    input_ids, labels, segment_ids = fill_rows(segments, placements, CAPACITY, PADDING)
    assert (input_ids.dtype, labels.dtype, segment_ids.dtype) == (np.uint16, np.int32, np.uint16)

    numbers = []
    for placement in placements:
        where = placement.row, slice(placement.start, placement.start + placement.length)
        assert input_ids[where].tolist() == segments[placement.segment].inputs.tolist()
        assert labels[where].tolist() == segments[placement.segment].labels.tolist()
        (number,) = set(segment_ids[where].tolist())
        numbers.append((placement.row, number))
    per_row = Counter(row for row, _ in numbers)
    assert sorted(numbers) == [(row, number) for row in sorted(per_row) for number in range(1, per_row[row] + 1)]

    empty = np.ones(input_ids.shape, dtype=bool)
    for row, slot in occupied_slots(placements):
        empty[row, slot] = False
    assert (input_ids[empty] == PADDING).all()
    assert (labels[empty] == IGNORED).all()
    assert (segment_ids[empty] == 0).all()


def test_no_segments_make_no_rows() -> None:
    assert best_fit_decreasing([], CAPACITY) == []
    assert [array.shape for array in fill_rows([], [], CAPACITY, PADDING)] == [(0, CAPACITY)] * 3
