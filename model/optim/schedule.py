"""The learning rate as a pure function of the step: nothing to save, nothing to lose on resume."""

from __future__ import annotations

import math

from model.config.optim import OptimConfig


def learning_rate(config: OptimConfig, step: int, num_steps: int) -> float:
    """Learning rate of optimizer step `step` (from 0) of `num_steps`: warm-up, a stretch at the peak, decay.

    The first step already moves (1/warmup of the peak) and the last one still does, unless the final share is 0
    exactly after it.
    """
    warmup_steps = round(config.warmup_share * num_steps)
    if step < warmup_steps:
        return config.peak_lr * ((step + 1) / warmup_steps)
    decay_start = first_step_of_decay(config, num_steps)
    left = (num_steps - step) / max(1, num_steps - decay_start)
    level = decayed(min(1.0, max(0.0, left)), config.decay)
    return config.peak_lr * (config.final_lr_share + (1 - config.final_lr_share) * level)


def first_step_of_decay(config: OptimConfig, num_steps: int) -> int:
    """How many of `num_steps` steps come before the decay: a training that goes on later goes on from there."""
    return round((config.warmup_share + config.stable_share) * num_steps)


def decayed(left: float, decay: str) -> float:
    """Level between 1 and 0 when the share `left` of a decay is still to come."""
    return (1 - math.cos(math.pi * left)) / 2 if decay == "cosine" else left
