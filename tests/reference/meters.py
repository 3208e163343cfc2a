"""Running figures of a training written out over the whole history of steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def loss_average(losses: Sequence[float], weight: float) -> float:
    """The mean of all losses, each weighing `weight` to the power of its age in steps."""
    weights = [weight**age for age in reversed(range(len(losses)))]
    return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)


def clipped_share(clipped: Sequence[bool], window: int) -> float:
    """The share of the last `window` steps that were clipped."""
    recent = clipped[-window:]
    return sum(recent) / len(recent)


def expert_load(counts: Sequence[np.ndarray], weight: float) -> np.ndarray:
    """Counts (L, E) of all steps since the experts changed, each weighing `weight` to the power of its age."""
    total = np.zeros(counts[-1].shape)
    for age, step_counts in enumerate(reversed(counts)):
        if step_counts.shape != total.shape:
            break
        total += weight**age * step_counts
    return total
