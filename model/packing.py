"""Documents to segments, segments to rows: no token lost, none repeated as a target, almost no padding."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.chat import Segment
from model.config import IGNORED


@dataclass(frozen=True)
class PackedTokens:
    """Packed rows, usually memory-mapped.

    `segment_ids` numbers the documents of a row from 1; 0 is padding. `labels` is the id that a slot must
    predict, or -100 where it is no target. `fingerprint` names the content and goes into checkpoints.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    segment_ids: np.ndarray
    fingerprint: str

    @property
    def num_rows(self) -> int:
        return int(self.input_ids.shape[0])

    @property
    def sequence_length_tokens(self) -> int:
        return int(self.input_ids.shape[1])


@dataclass(frozen=True)
class Placement:
    """Where a segment went."""

    segment: int
    row: int
    start: int
    length: int


def document_segments(ids: Sequence[int], end_of_text: int, max_tokens: int) -> list[Segment]:
    """A document as segments: read end-of-text, then the text; predict the text, then end-of-text.

    A document longer than a row is cut. Each piece starts by reading the last token of the piece before, so
    every token is predicted exactly once, and end-of-text is predicted only where the document ends.
    """
    stream = np.array([end_of_text, *ids, end_of_text], dtype=np.int64)
    inputs, labels = stream[:-1], stream[1:]
    return [
        Segment(inputs[start : start + max_tokens], labels[start : start + max_tokens])
        for start in range(0, len(inputs), max_tokens)
    ]


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[Placement]:
    """Place the longest segment first, each into the fullest row it fits (arXiv 2404.10830).

    Ties go to the earlier segment and the lower row, so the result is a function of the lengths alone. Raises
    ValueError for a segment longer than a row.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    if order and lengths[order[0]] > capacity:
        raise ValueError(f"a segment has {lengths[order[0]]} tokens, a row only {capacity}")
    open_rows: list[tuple[int, int]] = []  # (free slots, row), sorted
    placements = []
    num_rows = 0
    for index in order:
        length = lengths[index]
        found = bisect_left(open_rows, (length, -1))
        if found < len(open_rows):
            free, row = open_rows.pop(found)
        else:
            free, row, num_rows = capacity, num_rows, num_rows + 1
        placements.append(Placement(index, row, capacity - free, length))
        if free > length:
            insort(open_rows, (free - length, row))
    return placements


def fill_rows(
    segments: Sequence[Segment], placements: Sequence[Placement], capacity: int, padding: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arrays (rows, capacity): input ids uint16, labels int32 (-100 where nothing is predicted), segment ids uint16."""
    num_rows = max((p.row for p in placements), default=-1) + 1
    input_ids = np.full((num_rows, capacity), padding, dtype=np.uint16)
    labels = np.full((num_rows, capacity), IGNORED, dtype=np.int32)
    segment_ids = np.zeros((num_rows, capacity), dtype=np.uint16)
    for p in placements:
        where = slice(p.start, p.start + p.length)
        input_ids[p.row, where] = segments[p.segment].inputs
        labels[p.row, where] = segments[p.segment].labels
        segment_ids[p.row, where] = segment_ids[p.row].max() + 1
    return input_ids, labels, segment_ids
