"""Documents to segments, segments to rows: no token lost, none repeated as a target, almost no padding."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

IGNORED = -100
"""Label of a slot that is no target."""

SLACK_SHARES = (1 / 8, 1 / 32, 0.0)
"""How far before the end of a row a long document may be cut to end with a line or sentence; tried in turn."""
WANTED_FILL = 0.99


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

    def rows(self, numbers: np.ndarray) -> PackedTokens:
        """A copy of the rows of these numbers, in their order."""
        arrays = (self.input_ids[numbers], self.labels[numbers], self.segment_ids[numbers])
        return PackedTokens(*arrays, self.fingerprint)


@dataclass(frozen=True)
class ShardedTokens:
    """Packed rows that lie in several files, numbered through; reads as PackedTokens do."""

    shards: tuple[PackedTokens, ...]
    fingerprint: str

    @property
    def num_rows(self) -> int:
        return sum(shard.num_rows for shard in self.shards)

    @property
    def sequence_length_tokens(self) -> int:
        return self.shards[0].sequence_length_tokens

    def rows(self, numbers: np.ndarray) -> PackedTokens:
        """A copy of the rows of these numbers, in their order."""
        bases = np.cumsum([0, *(shard.num_rows for shard in self.shards)])
        owner = np.searchsorted(bases, numbers, side="right") - 1
        used = np.unique(owner) if len(owner) else [0]
        parts = [self.shards[s].rows(numbers[owner == s] - bases[s]) for s in used]
        back = np.argsort(np.argsort(owner, kind="stable"), kind="stable")
        columns = ((part.input_ids, part.labels, part.segment_ids) for part in parts)
        arrays = [np.concatenate(column)[back] for column in zip(*columns, strict=True)]
        return PackedTokens(arrays[0], arrays[1], arrays[2], self.fingerprint)


@dataclass(frozen=True)
class Segments:
    """Slots of many segments, one after another: what is read and what each slot must predict (-100: nothing)."""

    inputs: np.ndarray
    """(S,), S = sum of lengths."""
    labels: np.ndarray
    """(S,) int32."""
    lengths: np.ndarray
    """(N,) slots of each segment."""
    owners: np.ndarray
    """(N,) number of the document each segment is of."""

    @property
    def offsets(self) -> np.ndarray:
        """(N + 1,) where each segment starts."""
        return np.concatenate([[0], np.cumsum(self.lengths)])


def spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions start, start + 1, … of every span, one span after another."""
    ends = np.cumsum(lengths)
    positions = np.repeat(starts - ends + lengths, lengths)
    positions += np.arange(len(positions))
    return positions


def document_segments(ids: np.ndarray, offsets: np.ndarray, end_of_text: int) -> Segments:
    """Documents as segments: read end-of-text, then the text; predict the text, then end-of-text.

    `ids` holds the documents one after another, `offsets` (N + 1,) where each starts. A segment may be longer than
    a row; `cut` sees to that.
    """
    lengths = np.diff(offsets) + 1
    starts = np.concatenate([[0], np.cumsum(lengths)])
    inside = np.ones(starts[-1], dtype=bool)
    inside[starts[:-1]] = False
    inputs = np.full(starts[-1], end_of_text, dtype=ids.dtype)
    inputs[inside] = ids
    inside[:] = True
    inside[starts[1:] - 1] = False
    labels = np.full(starts[-1], end_of_text, dtype=np.int32)
    labels[inside] = ids
    return Segments(inputs, labels, lengths, np.arange(len(lengths)))


def cut(segments: Segments, row_length_tokens: int, end_ranks: np.ndarray, slack_share: float) -> Segments:
    """`segments` of documents cut so that none is longer than `row_length_tokens`.

    `slack_share` is how far before the end of a row a cut may come, as a share of it. A cut comes after the last slot
    that predicts the end of a line (rank 2 in `end_ranks`, by id) or else of a sentence (rank 1) within the slack, or
    at the end of the row. Each piece starts by reading the last token of the piece before, so every token is predicted
    exactly once, and end-of-text only where the document ends.
    """
    slack = int(row_length_tokens * slack_share)
    long = np.flatnonzero(segments.lengths > row_length_tokens)
    if not len(long):
        return segments
    ranks = end_ranks[segments.labels]
    line_ends, sentence_ends = (np.flatnonzero(ranks == rank).tolist() for rank in (2, 1))
    offsets = segments.offsets
    pieces = [[length] for length in segments.lengths.tolist()]
    for number in long.tolist():
        done, end = int(offsets[number]), int(offsets[number + 1])
        lengths = []
        while end - done > row_length_tokens:
            limit = done + row_length_tokens
            stop = next(
                (stop for ends in (line_ends, sentence_ends) if (stop := last_before(ends, limit)) > limit - slack),
                limit,
            )
            lengths.append(stop - done)
            done = stop
        pieces[number] = [*lengths, end - done]
    counts = np.array([len(p) for p in pieces])
    lengths_of_pieces = np.array([length for piece in pieces for length in piece])
    return Segments(segments.inputs, segments.labels, lengths_of_pieces, np.repeat(segments.owners, counts))


def last_before(ends: list[int], limit: int) -> int:
    """Where a piece stops that predicts the last of these slots before the limit; -1 if there is none."""
    index = bisect_left(ends, limit)
    return ends[index - 1] + 1 if index else -1


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and start of each segment: the longest first, each into the fullest row it fits (arXiv 2404.10830).

    A function of the lengths alone. Raises ValueError for a segment longer than a row.
    """
    if len(lengths) and lengths.max() > capacity:
        raise ValueError(f"a segment has {lengths.max()} tokens, a row only {capacity}")
    rows, starts = np.empty(len(lengths), dtype=np.int64), np.empty(len(lengths), dtype=np.int64)
    open_rows: list[list[int]] = [[] for _ in range(capacity + 1)]
    """Rows by their free slots."""
    has_open = 0
    """Bit n is set if a row has n free slots."""
    num_rows = 0
    order = np.argsort(-lengths, kind="stable")
    for index, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fitting = has_open >> length
        if fitting:
            free = length + (fitting & -fitting).bit_length() - 1
            row = open_rows[free].pop()
            if not open_rows[free]:
                has_open ^= 1 << free
        else:
            free, row, num_rows = capacity, num_rows, num_rows + 1
        rows[index], starts[index] = row, capacity - free
        if free > length:
            open_rows[free - length].append(row)
            has_open |= 1 << (free - length)
    return rows, starts


@dataclass(frozen=True)
class Packing:
    """Segments and where each went."""

    segments: Segments
    rows: np.ndarray
    starts: np.ndarray

    @property
    def num_rows(self) -> int:
        return int(self.rows.max()) + 1 if len(self.rows) else 0

    def fill(self, row_length_tokens: int) -> float:
        """Share of slots that hold a token."""
        return float(self.segments.lengths.sum() / (self.num_rows * row_length_tokens)) if self.num_rows else 0.0

    def fill_rows(self, row_length_tokens: int, padding: int, dtype: type[np.unsignedinteger]) -> PackedTokens:
        """Arrays (rows, row length): ids of `dtype`, labels int32, segment ids uint16."""
        num_slots = self.num_rows * row_length_tokens
        input_ids = np.full(num_slots, padding, dtype=dtype)
        labels = np.full(num_slots, IGNORED, dtype=np.int32)
        segment_ids = np.zeros(num_slots, dtype=np.uint16)
        slots = spans(self.rows * row_length_tokens + self.starts, self.segments.lengths)
        input_ids[slots], labels[slots] = self.segments.inputs, self.segments.labels
        order = np.lexsort((self.starts, self.rows))
        begins = np.flatnonzero(np.diff(self.rows[order], prepend=-1))
        numbers = np.empty(len(order), dtype=np.uint16)
        numbers[order] = np.arange(len(order)) - np.repeat(begins, np.diff(np.append(begins, len(order)))) + 1
        segment_ids[slots] = np.repeat(numbers, self.segments.lengths)
        shape = (self.num_rows, row_length_tokens)
        return PackedTokens(input_ids.reshape(shape), labels.reshape(shape), segment_ids.reshape(shape), "")


def pack(segments: Segments, row_length_tokens: int) -> Packing:
    """Place segments in rows. Raises ValueError if one is longer than a row."""
    return Packing(segments, *best_fit_decreasing(segments.lengths, row_length_tokens))


def pack_documents(segments: Segments, row_length_tokens: int, end_ranks: np.ndarray) -> Packing:
    """Cut and place documents: where a line or sentence ends as long as that leaves the rows full enough."""
    packing = pack(cut(segments, row_length_tokens, end_ranks, SLACK_SHARES[0]), row_length_tokens)
    for slack_share in SLACK_SHARES[1:]:
        if packing.fill(row_length_tokens) >= WANTED_FILL or len(packing.segments.lengths) == len(segments.lengths):
            break
        packing = pack(cut(segments, row_length_tokens, end_ranks, slack_share), row_length_tokens)
    return packing
