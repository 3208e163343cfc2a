"""Turns to ids and loss mask, from the template's own spans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from model.config import IGNORED
from model.tokenizer import TURN_END, TURN_START, special_id

Turn = tuple[str, str]
"""(role, content)"""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- message['content'] + '<|im_end|>' -}}"
    "{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""ChatML, MiniMind's template without its default system prompt; exported with the tokenizer."""


@dataclass(frozen=True)
class Segment:
    """One document's slots: what is read and what each slot must predict (-100: nothing)."""

    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)


def render_turn(tokenizer: Tokenizer, turn: Turn) -> tuple[list[int], list[bool]]:
    """Ids of one turn, and which of them an assistant must produce: its content and the end marker."""
    role, content = turn
    header = f"{role}\n"
    encoded = tokenizer.encode(header + content, add_special_tokens=False)
    spoken = role == "assistant"
    newline = tokenizer.encode("\n", add_special_tokens=False).ids
    ids = [special_id(tokenizer, TURN_START), *encoded.ids, special_id(tokenizer, TURN_END), *newline]
    targets = [
        False,
        *(spoken and start >= len(header) for start, _ in encoded.offsets),
        spoken,
        *(False for _ in newline),
    ]
    return ids, targets


def render_prompt(tokenizer: Tokenizer, turns: list[Turn]) -> list[int]:
    """Ids of a conversation that waits for the assistant."""
    ids = [token for turn in turns for token in render_turn(tokenizer, turn)[0]]
    return [*ids, special_id(tokenizer, TURN_START), *tokenizer.encode("assistant\n", add_special_tokens=False).ids]


def render_conversation(tokenizer: Tokenizer, turns: list[Turn], max_tokens: int) -> tuple[list[Segment], int]:
    """A conversation as segments of at most `max_tokens` slots, and how many windows had to be given up.

    A conversation that does not fit is cut between exchanges, so every answer is learned once and none is cut;
    each window starts at a user's turn and repeats the system turn. An exchange that alone is too long loses the
    start of its question; one whose answer alone is too long is given up, and counted for the caller to report.
    """
    rendered = [render_turn(tokenizer, turn) for turn in turns]
    system = rendered[:1] if turns and turns[0][0] == "system" else []
    exchanges: list[list[tuple[list[int], list[bool]]]] = []
    for turn, item in zip(turns[len(system) :], rendered[len(system) :], strict=True):
        if turn[0] == "user" or not exchanges:
            exchanges.append([])
        exchanges[-1].append(item)
    budget = max_tokens + 1 - sum(len(ids) for ids, _ in system)
    windows: list[list[tuple[list[int], list[bool]]]] = []
    used = budget + 1
    for exchange in exchanges:
        size = sum(len(ids) for ids, _ in exchange)
        if used + size > budget:
            windows.append([])
            used = 0
        windows[-1].extend(exchange)
        used += size
    segments = [to_segment([*system, *window], max_tokens) for window in windows if has_answer(window)]
    kept = [segment for segment in segments if segment is not None]
    return kept, len(segments) - len(kept)


def has_answer(window: list[tuple[list[int], list[bool]]]) -> bool:
    """Whether a window holds anything to learn; a last question without an answer does not."""
    return any(any(targets) for _, targets in window)


def to_segment(items: list[tuple[list[int], list[bool]]], max_tokens: int) -> Segment | None:
    """Shift by one; drop what does not fit from the left. None if an answer would be cut or nothing is a target."""
    ids = np.array([token for tokens, _ in items for token in tokens], dtype=np.int64)
    targets = np.array([flag for _, flags in items for flag in flags], dtype=bool)
    overflow = max(0, len(ids) - (max_tokens + 1))
    if targets[:overflow].any() or (overflow and targets[overflow]) or not targets[overflow:].any():
        return None
    ids, targets = ids[overflow:], targets[overflow:]
    return Segment(ids[:-1], np.where(targets[1:], ids[1:], IGNORED))
