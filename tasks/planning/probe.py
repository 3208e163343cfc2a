"""Seconds per token, measured by a few training steps before a stage starts."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from model.config.network import ModelConfig
from model.config.training import TrainConfig
from model.training.batches import Batch
from model.training.state import TrainState
from model.training.trainer import train_step
from tasks.planning.machine import best_device, keep_freed_memory

PROBE_SECONDS, PROBE_SHARE = 4.0, 0.02
"""How long a probe takes at most: in all, and of what it foretells."""


def seconds_per_token(model: ModelConfig, config: TrainConfig, tokens: int) -> float:
    """Time of one training token at this shape, measured with real optimizer steps on random ids.

    Steps of one micro-batch go on for a few seconds, the fastest counts; the first only if it alone is long enough.
    Of one rank, whatever their number.
    """
    micro_batches = config.num_steps(tokens) * (config.batch_rows // config.micro_batch_rows)
    state, batch, gently = probe_state(model, config, tokens)
    fastest, started = train_step(state, batch, gently, num_steps=1_000).seconds, time.perf_counter()
    while time.perf_counter() - started < min(PROBE_SECONDS, PROBE_SHARE * micro_batches * fastest):
        fastest = min(fastest, train_step(state, batch, gently, num_steps=1_000).seconds)
    return fastest / batch.ids_BT.numel()


def probe_state(model: ModelConfig, config: TrainConfig, tokens: int) -> tuple[TrainState, Batch, TrainConfig]:
    """A fresh state, a micro-batch of random ids, and the configuration to step with."""
    keep_freed_memory()
    gently = replace(config.optim, peak_lr=1e-6)  # what the recipe's rate does to random ids is not the question
    device = best_device()
    config = replace(config, batch_rows=config.micro_batch_rows, num_ranks=1, optim=gently)
    state = TrainState.create(model, config, device, config.batch_rows * tokens)
    ids = torch.randint(0, model.vocab_size, (config.batch_rows, tokens), generator=torch.Generator().manual_seed(0))
    return state, Batch(ids, ids, torch.ones_like(ids)).to(device), config
