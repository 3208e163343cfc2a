"""Seconds per token, measured by a few training steps before a stage starts. Whether it compiles follows from them."""

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
"""How long a probe lasts at most: in all, and as a share of the time it predicts."""


def seconds_per_token(model: ModelConfig, config: TrainConfig, row_length_tokens: int) -> float:
    """Time of one training token on one rank, measured with real optimizer steps on rows of random ids.

    Steps of one micro-batch are repeated for a few seconds, and the fastest counts; if the first takes that long, it is
    the only one.
    """
    micro_batches = config.num_steps(row_length_tokens) * (config.batch_rows // config.micro_batch_rows)
    state, batch, probe_config = probe_state(model, config, row_length_tokens)
    fastest, started = train_step(state, batch, probe_config, num_steps=1_000).seconds, time.perf_counter()
    while time.perf_counter() - started < min(PROBE_SECONDS, PROBE_SHARE * micro_batches * fastest):
        fastest = min(fastest, train_step(state, batch, probe_config, num_steps=1_000).seconds)
    return fastest / batch.ids_BT.numel()


def probe_state(
    model: ModelConfig, config: TrainConfig, row_length_tokens: int
) -> tuple[TrainState, Batch, TrainConfig]:
    """A fresh state, a micro-batch of random ids, and the configuration to step with."""
    keep_freed_memory()
    low_rate = replace(config.optim, peak_lr=1e-6)  # at the recipe's rate random ids could diverge
    device = best_device()
    config = replace(config, batch_rows=config.micro_batch_rows, num_ranks=1, optim=low_rate)
    state = TrainState.create(model, config, device, config.batch_rows * row_length_tokens)
    shape, generator = (config.batch_rows, row_length_tokens), torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.vocab_size, shape, generator=generator)
    return state, Batch(ids, ids, torch.ones_like(ids)).to(device), config
