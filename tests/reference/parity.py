"""Two readings of a model beside each other, one token at a time."""

from __future__ import annotations

from torch import Tensor

Routes = list[list[list[set[int]]]]
"""Experts by row, token and layer."""


def routes(experts_LNK: list[Tensor], rows: int) -> Routes:
    tokens = len(experts_LNK[0]) // rows if experts_LNK else 0
    return [
        [[set(layer_NK[row * tokens + token].tolist()) for layer_NK in experts_LNK] for token in range(tokens)]
        for row in range(rows)
    ]


def agreement(ours: Routes, theirs: Routes, layer: int) -> float:
    """Share of tokens with the same experts in one layer."""
    same = [
        a[layer] == b[layer] for row, other in zip(ours, theirs, strict=True) for a, b in zip(row, other, strict=True)
    ]
    return sum(same) / len(same)


def compared_tokens(ours: Routes, theirs: Routes) -> list[tuple[int, int]]:
    """(row, token) up to each row's first turned route; all of them where that is less than half."""
    kept = []
    for row, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        for token, (a, b) in enumerate(zip(one, other, strict=True)):
            if a != b:
                break
            kept.append((row, token))
    every = [(row, token) for row, one in enumerate(ours) for token in range(len(one))]
    return kept if 2 * len(kept) >= len(every) else every
