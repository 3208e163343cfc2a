"""Packing the slow way: one document at a time, every row looked at for every segment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.tokens.packing import Segments

Slots = tuple[list[int], list[int]]
"""(inputs, labels) of one segment."""


def document_slots(ids: Sequence[int], end_of_text: int) -> Slots:
    stream = [end_of_text, *ids, end_of_text]
    return stream[:-1], stream[1:]


def lengths_of_pieces(labels: Sequence[int], ranks: Sequence[int], max_tokens: int, slack_share: float) -> list[int]:
    """Where a document is cut: after a line in the last slots of a row, else after a sentence, else at its end."""
    allowed = range(max_tokens, max_tokens - int(max_tokens * slack_share), -1)
    lengths, rest = [], list(labels)
    while len(rest) > max_tokens:
        good = [n for rank in (2, 1) for n in allowed if ranks[rest[n - 1]] == rank]
        lengths.append(good[0] if good else max_tokens)
        rest = rest[lengths[-1] :]
    return [*lengths, len(rest)]


def loads_of_best_fit(lengths: Sequence[int], capacity: int) -> list[int]:
    """Used slots of each row, ascending; which of two equally full rows is filled makes no difference to them."""
    rows: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row, used in enumerate(rows) if used + length <= capacity]
        if not fitting:
            rows.append(0)
            fitting = [len(rows) - 1]
        rows[max(fitting, key=lambda row: rows[row])] += length
    return sorted(rows)


def slots_of(segments: Segments) -> list[Slots]:
    """Each segment by itself."""
    ends = np.cumsum(segments.lengths).tolist()
    pieces = [slice(end - length, end) for end, length in zip(ends, segments.lengths.tolist(), strict=True)]
    return [(segments.inputs[piece].tolist(), segments.labels[piece].tolist()) for piece in pieces]


def occupied_slots(rows: Sequence[int], starts: Sequence[int], lengths: Sequence[int]) -> dict[tuple[int, int], int]:
    """Which segment lies in each (row, slot); fails if two claim the same one."""
    owner: dict[tuple[int, int], int] = {}
    for segment, (row, start, length) in enumerate(zip(rows, starts, lengths, strict=True)):
        for slot in range(start, start + length):
            assert (row, slot) not in owner, f"segments {owner[row, slot]} and {segment} overlap at {row, slot}"
            owner[row, slot] = segment
    return owner
