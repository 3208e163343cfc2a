"""Attention one query at a time, and what packed segments mean, one slot at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def naive_attention(q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, mask_B1TT: Tensor) -> Tensor:
    out_BHTC = torch.zeros_like(q_BHTC)
    rows, heads, slots, size = q_BHTC.shape
    for row in range(rows):
        for head in range(heads):
            for slot in range(slots):
                seen = mask_B1TT[row, 0, slot]
                scores = k_BHTC[row, head, seen] @ q_BHTC[row, head, slot] / size**0.5
                out_BHTC[row, head, slot] = scores.softmax(dim=0) @ v_BHTC[row, head, seen]
    return out_BHTC


def positions(segments: Sequence[int]) -> list[int]:
    """How many slots lie between each slot and the start of its segment."""
    distances: list[int] = []
    for slot, segment in enumerate(segments):
        continues = slot > 0 and segments[slot - 1] == segment
        distances.append(distances[-1] + 1 if continues else 0)
    return distances


def may_look(segments: Sequence[int]) -> list[list[bool]]:
    """Which slot (inner list) each slot (outer list) may look at."""
    slots = range(len(segments))
    return [[there <= here and segments[there] == segments[here] for there in slots] for here in slots]
