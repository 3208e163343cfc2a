"""A learning-rate schedule written out step by step."""

from __future__ import annotations

import math


def plain_schedule(
    num_steps: int, warmup_share: float, stable_share: float, decay: str, final_lr_share: float
) -> list[float]:
    """The learning rate of every step as a share of the peak."""
    warmup = round(num_steps * warmup_share)
    stable = round(num_steps * (warmup_share + stable_share)) - warmup
    falling = num_steps - warmup - stable
    levels = [step / warmup for step in range(1, warmup + 1)] + [1.0] * stable
    for step in range(falling):
        done = step / falling
        remaining = (1 + math.cos(math.pi * done)) / 2 if decay == "cosine" else 1 - done
        levels.append(final_lr_share + remaining * (1 - final_lr_share))
    return levels
