"""Gates one token at a time, in float64, by the definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence


def gate(name: str, logits: Sequence[float]) -> list[float]:
    if name == "softmax":
        top = max(logits)
        powers = [math.exp(z - top) for z in logits]
        return [p / sum(powers) for p in powers]
    if name == "sigmoid":
        return [1 / (1 + math.exp(-z)) for z in logits]
    return sparsemax(logits) if name == "sparsemax" else entmax15(logits)


def sparsemax(logits: Sequence[float]) -> list[float]:
    """Sort, find the support, subtract its threshold (arXiv 1602.02068, algorithm 1)."""
    ordered = sorted(logits, reverse=True)
    support = max(k for k in range(1, len(ordered) + 1) if 1 + k * ordered[k - 1] > sum(ordered[:k]))
    threshold = (sum(ordered[:support]) - 1) / support
    return [max(z - threshold, 0.0) for z in logits]


def entmax15(logits: Sequence[float]) -> list[float]:
    """max(z / 2 - t, 0) squared, with t by bisection such that they sum to 1 (arXiv 1905.05702)."""
    low, high = max(logits) / 2 - 1, max(logits) / 2
    for _ in range(100):
        middle = (low + high) / 2
        if sum(max(z / 2 - middle, 0.0) ** 2 for z in logits) > 1:
            low = middle
        else:
            high = middle
    return [max(z / 2 - low, 0.0) ** 2 for z in logits]


def chosen(scores: Sequence[float], top_k: int, num_groups: int, num_kept: int) -> list[int]:
    """The best experts of the best groups, a group being worth its two best scores."""
    size = len(scores) // num_groups
    groups = [list(range(g * size, (g + 1) * size)) for g in range(num_groups)]
    worth = [sum(sorted((scores[e] for e in group), reverse=True)[:2]) for group in groups]
    kept = sorted(range(num_groups), key=lambda g: -worth[g])[:num_kept]
    allowed = [e for g in kept for e in groups[g]]
    return sorted(allowed, key=lambda e: -scores[e])[:top_k]
