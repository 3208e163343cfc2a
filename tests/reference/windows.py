"""Conversations cut to windows, one at a time: what `data/windows.py` does for all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from model.tokens.chat import RenderedTurn, Turn, render_turn
from model.tokens.packing import IGNORED


@dataclass(frozen=True)
class Segment:
    """One document's slots: what is read and what each slot must predict (-100: nothing)."""

    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)


def render_conversation(tokenizer: Tokenizer, turns: list[Turn], max_tokens: int) -> tuple[list[Segment], int]:
    """A conversation as segments of at most `max_tokens` slots, and how many answers are in none."""
    return cut_conversation([turn[0] for turn in turns], [render_turn(tokenizer, turn) for turn in turns], max_tokens)


def cut_conversation(
    roles: Sequence[str], rendered: Sequence[RenderedTurn], max_tokens: int
) -> tuple[list[Segment], int]:
    """Segments of a rendered conversation, and how many answers are in none.

    A conversation that does not fit is cut between exchanges, from its end, so every answer is learned once and none
    is cut. Each window repeats the system turn, and its free slots hold the end of the exchanges before, as
    context that is no target; so all windows but the first are full. An exchange that alone is too long is cut from
    the left; one whose last answer alone is too long is dropped. A conversation without anything to learn has no
    segment.
    """
    system = list(rendered[:1]) if roles and roles[0] == "system" else []
    exchanges: list[list[RenderedTurn]] = []
    for role, item in zip(roles[len(system) :], rendered[len(system) :], strict=True):
        if role == "user" or not exchanges:
            exchanges.append([])
        exchanges[-1].append(item)
    budget = max_tokens + 1 - sum(len(ids) for ids, _ in system)
    sizes = [sum(len(ids) for ids, _ in exchange) for exchange in exchanges]
    windows: list[range] = []
    last = len(exchanges)
    while last:
        first, used = last - 1, sizes[last - 1]
        while first and used + sizes[first - 1] <= budget:
            first -= 1
            used += sizes[first]
        windows.insert(0, range(first, last))
        last = first
    segments_or_none: list[Segment | None] = []
    for window in windows:
        items = [item for number in window for item in exchanges[number]]
        if has_answer(items):
            num_slots = budget - sum(sizes[number] for number in window)
            segments_or_none.append(
                to_segment([*system, *context(exchanges[: window.start], num_slots), *items], max_tokens)
            )
    kept = [segment for segment in segments_or_none if segment is not None]
    learned = sum(int(((s.labels != IGNORED) & ~followed(s.labels)).sum()) for s in kept)
    return kept, sum(any(targets) for _, targets in rendered) - learned


def followed(labels: np.ndarray) -> np.ndarray:
    """Whether the next slot has a target, too: an answer's last has none after it."""
    return np.append(labels[1:] != IGNORED, False)


def context(exchanges: Sequence[Sequence[RenderedTurn]], num_slots: int) -> list[RenderedTurn]:
    """The last `num_slots` ids of earlier exchanges, none of them a target."""
    ids: list[int] = []
    for exchange in reversed(exchanges):
        if len(ids) >= num_slots:
            break
        ids = [token for tokens, _ in exchange for token in tokens] + ids
    kept = ids[max(0, len(ids) - num_slots) :] if num_slots > 0 else []
    return [(kept, [False] * len(kept))] if kept else []


def has_answer(window: list[RenderedTurn]) -> bool:
    """Whether a window holds anything to learn; a last question without an answer does not."""
    return any(any(targets) for _, targets in window)


def to_segment(items: list[RenderedTurn], max_tokens: int) -> Segment | None:
    """Shift by one; drop what does not fit from the left. None if no answer stays whole.

    What is left of a cut answer is context: its first token would have to be predicted from nothing.
    """
    size = sum(len(tokens) for tokens, _ in items)
    overflow = max(0, size - (max_tokens + 1))
    ids: list[int] = []
    targets: list[bool] = []
    for tokens, flags in items:
        is_cut = overflow > 0 and any(flags) and len(ids) + flags.index(True) <= overflow
        ids += tokens
        targets += [False] * len(flags) if is_cut else flags
    if not any(targets):
        return None
    kept, learned = np.array(ids[overflow:], dtype=np.int64), np.array(targets[overflow:], dtype=bool)
    return Segment(kept[:-1], np.where(learned[1:], kept[1:], IGNORED))
