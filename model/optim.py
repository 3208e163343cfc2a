"""Parameter groups, AdamW, and the learning-rate schedule."""

from __future__ import annotations

import torch
from torch import nn

from model.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with decay on matrices only: norms and the (tied) embedding table are left alone."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() >= 2 and "embed_tokens" not in name
        (decayed if is_matrix else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.peak_lr, betas=(config.beta1, config.beta2), fused=True)


def learning_rate(config: OptimConfig, step: int, num_steps: int) -> float:
    """Learning rate of optimizer step `step` (from 0) of `num_steps`: linear warm-up, then linear decay.

    The first step already moves (1/warmup of the peak) and the last one still does, unless the final share is 0
    exactly after it.
    """
    warmup_steps = round(config.warmup_share * num_steps)
    if step < warmup_steps:
        return config.peak_lr * (step + 1) / warmup_steps
    left = (num_steps - step) / max(1, num_steps - warmup_steps)
    return config.peak_lr * (config.final_lr_share + (1 - config.final_lr_share) * left)
