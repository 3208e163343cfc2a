"""Conversations longer than a row → windows, all of them at once.

A conversation is cut between exchanges (a question and what follows it), from the end: each window takes as many whole
exchanges as fit. Each repeats the system turn, and what room it has left holds the end of what was said before, as
context that is no target; so all windows but the first are full, and begin wherever that room begins. An exchange that
alone is too long loses its start, and with it the answers that begin there: an answer is learned whole or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model.tokens.packing import IGNORED, Segments, spans


@dataclass(frozen=True)
class Rendered:
    """Ids of turns, whole conversations one after another. S = slots, T = turns."""

    ids: np.ndarray
    """(S,) int32"""
    targets: np.ndarray
    """(S,) whether an assistant must produce the id."""
    lengths: np.ndarray
    """(T,)"""
    owner: np.ndarray
    """(T,) number of the conversation, ascending."""
    spoken: np.ndarray
    """(T,) whether the turn is an assistant's that is learned: then its last id is a target."""
    asked: np.ndarray
    """(T,) whether the turn is a user's."""
    system: np.ndarray
    """(T,) whether the turn is the system's."""

    @cached_property
    def starts(self) -> np.ndarray:
        """(T + 1,)"""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @cached_property
    def answers(self) -> np.ndarray:
        """First target of each spoken turn, ascending."""
        targets = np.flatnonzero(self.targets)
        return targets[np.searchsorted(targets, self.starts[:-1][self.spoken])]


@dataclass(frozen=True)
class Answers:
    """What conversations have to learn, in order. A = answers."""

    owner: np.ndarray
    """(A,) number of the conversation."""
    number: np.ndarray
    """(A,) from 1 in each conversation; answers that are context alone do not count."""
    tokens: np.ndarray
    """(A,) ids that are targets."""
    needed: np.ndarray
    """(A,) slots of the shortest row that holds it: an id before the answer, and all to the end of its exchange."""

    def longer_than(self, row_length_tokens: int) -> Answers:
        """Those that are learned in no row of this length."""
        lost = self.needed > row_length_tokens
        return Answers(self.owner[lost], self.number[lost], self.tokens[lost], self.needed[lost])


@dataclass(frozen=True)
class Exchanges:
    """From a question up to the next, the system turn apart. X = exchanges, C = conversations."""

    starts: np.ndarray
    """(X,) slots of the rendered turns."""
    ends: np.ndarray
    """(X,)"""
    owner: np.ndarray
    """(X,)"""
    system_start: np.ndarray
    """(C,)"""
    system_length: np.ndarray
    """(C,) 0 for a conversation without a system turn."""

    @classmethod
    def of(cls, rendered: Rendered, count: int) -> Exchanges:
        opening = np.diff(rendered.owner, prepend=-1) > 0
        system = opening & rendered.system
        first = opening & ~system
        first[1:] |= system[:-1] & ~opening[1:]
        turns = np.flatnonzero(~system & (first | rendered.asked))
        starts, owner = rendered.starts[turns], rendered.owner[turns]
        last = np.searchsorted(rendered.owner, owner, side="right")  # the turn after the conversation's last
        following = np.append(turns[1:], len(rendered.owner))
        ends = rendered.starts[np.minimum(following, last)]
        system_start, system_length = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        system_start[rendered.owner[system]] = rendered.starts[:-1][system]
        system_length[rendered.owner[system]] = rendered.lengths[system]
        return cls(starts, ends, owner, system_start, system_length)

    def answers(self, rendered: Rendered) -> Answers:
        """An answer is held by every row that holds it up to the end of its exchange: windows end with whole ones."""
        owner = rendered.owner[rendered.spoken]
        ends = self.ends[np.searchsorted(self.starts, rendered.answers, side="right") - 1]
        tokens = np.add.reduceat(rendered.targets, rendered.starts[:-1], dtype=np.int64)[rendered.spoken]
        number = np.arange(len(owner)) - np.searchsorted(owner, owner) + 1
        return Answers(owner, number, tokens, ends - rendered.answers)

    def windows(self, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last exchange of each window, in order, where a conversation has `room` (C,) slots for them."""
        first_of = np.searchsorted(self.owner, self.owner)
        fitting = np.searchsorted(self.starts, self.ends - room[self.owner])
        reach = np.clip(fitting, first_of, np.arange(len(self.starts)))
        lasts = np.flatnonzero(np.diff(self.owner, append=-1))
        found = []
        while len(lasts):
            firsts = reach[lasts]
            found.append((firsts, lasts))
            lasts = (firsts - 1)[firsts > first_of[firsts]]
        firsts, lasts = (np.concatenate([pair[n] for pair in found] or [np.zeros(0, dtype=np.int64)]) for n in (0, 1))
        order = np.argsort(firsts)
        return firsts[order], lasts[order]


def cut_windows(rendered: Rendered, count: int, row_length_tokens: int) -> tuple[Segments, Answers]:
    """Segments of at most `row_length_tokens` slots of `count` conversations, and all answers with what each needs.

    A segment is shifted by one: each slot predicts the next id if that is a target. Answers that need more are in none;
    a conversation without an answer that fits has no segment.
    """
    exchanges = Exchanges.of(rendered, count)
    firsts, lasts = exchanges.windows(row_length_tokens + 1 - exchanges.system_length)
    starts, ends = exchanges.starts[firsts], exchanges.ends[lasts]
    answered = np.searchsorted(rendered.answers, starts) < np.searchsorted(rendered.answers, ends)
    starts, ends, owner = starts[answered], ends[answered], exchanges.owner[firsts[answered]]

    system_length = exchanges.system_length[owner]
    overflow = np.maximum(0, system_length + ends - starts - (row_length_tokens + 1))
    # The first answer whose first id stays, and is not predicted from nothing.
    later = np.searchsorted(rendered.answers, np.maximum(starts, starts - system_length + overflow + 1))
    learned_from = np.append(rendered.answers, len(rendered.ids))[later]
    kept = learned_from < ends
    of_system = np.maximum(0, system_length - overflow)
    chosen = (owner[kept], ends[kept], of_system[kept], learned_from[kept])
    return filled(rendered, exchanges, row_length_tokens, *chosen), exchanges.answers(rendered)


def filled(
    rendered: Rendered, exchanges: Exchanges, row_length_tokens: int, owner: np.ndarray, ends: np.ndarray,
    of_system: np.ndarray, learned_from: np.ndarray,
) -> Segments:  # fmt: skip
    """A segment each window: the last `of_system` slots of the system turn, then what was said up to its end."""
    opening = exchanges.starts[np.searchsorted(exchanges.owner, owner)]
    said_from = np.maximum(opening, ends - (row_length_tokens + 1) + of_system)
    of_said = ends - said_from
    system_from = exchanges.system_start[owner] + exchanges.system_length[owner] - of_system
    slots = spans(np.stack([system_from, said_from], 1).ravel(), np.stack([of_system, of_said], 1).ravel())
    lengths = of_system + of_said
    return shifted(rendered, slots, lengths, np.repeat(learned_from, lengths), owner)


def shifted(
    rendered: Rendered, slots: np.ndarray, lengths: np.ndarray, learned_from: np.ndarray, owner: np.ndarray
) -> Segments:
    """Segments that read all slots but the last of each, and predict what follows, where it is learned."""
    ids = rendered.ids[slots]
    labels = np.where(rendered.targets[slots] & (slots >= learned_from), ids, np.int32(IGNORED))
    ends = np.cumsum(lengths)
    reads, predicts = np.ones(len(ids), dtype=bool), np.ones(len(ids), dtype=bool)
    reads[ends - 1] = False
    predicts[ends - lengths] = False
    return Segments(ids[reads], labels[predicts], lengths - 1, owner)
