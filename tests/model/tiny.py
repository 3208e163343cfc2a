"""Models, configurations and packed rows small enough for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from model.config.network import ModelConfig
from model.config.optim import OptimConfig
from model.config.training import TrainConfig
from model.network.transformer import Transformer
from model.tokens.packing import IGNORED, PackedTokens
from model.training.batches import Batch, batch_of_rows

SLOTS = 24
TEXTS = [
    "the cat sat on the mat and the user asked the assistant about the system",
    "Übung macht den Meister, naïve café, größer",
    "学而时习之,不亦说乎",
    "def f(x):\n    return x\n",
    "assistant\nuser\nsystem\n",
]


def tiny_config(**changes: Any) -> ModelConfig:
    config = ModelConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    return replace(config, **changes)


def tiny_training(**changes: Any) -> TrainConfig:
    """Six steps of four rows, in two micro-batches."""
    config = TrainConfig(
        num_tokens=6 * 4 * SLOTS,
        batch_rows=4,
        micro_batch_rows=2,
        precision="fp32",
        optim=OptimConfig(peak_lr=1e-2, warmup_share=0.3),
    )
    return replace(config, **changes)


def packed_rows(num_rows: int = 8, seed: int = 0) -> PackedTokens:
    """Rows of two random documents and some padding; the share of targets differs from row to row."""
    rng = np.random.default_rng(seed)
    stream = rng.integers(3, 300, (num_rows, SLOTS + 1))
    slot = np.arange(SLOTS)
    second_starts = rng.integers(4, SLOTS - 4, (num_rows, 1))
    padding_starts = rng.integers(SLOTS - 3, SLOTS + 1, (num_rows, 1))
    segment_ids = np.where(slot < second_starts, 1, 2) * (slot < padding_starts)
    is_target = (rng.random((num_rows, SLOTS)) < rng.uniform(0.1, 0.9, (num_rows, 1))) | (slot == 0)
    labels = np.where(is_target & (segment_ids > 0), stream[:, 1:], IGNORED)
    return PackedTokens(
        stream[:, :-1].astype(np.uint16), labels.astype(np.int32), segment_ids.astype(np.uint16), fingerprint="random"
    )


def batch_of(num_rows: int) -> Batch:
    """All of so many such rows."""
    return batch_of_rows(packed_rows(num_rows), np.arange(num_rows))


def silenced(model: Transformer) -> Transformer:
    """All weights zero: what the model says is what the test then writes into the embedding and the last norm."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


@torch.no_grad()
def chain_model(config: ModelConfig, chain: Sequence[int]) -> Transformer:
    """A model whose best next token is the next one of `chain`; after a token that is not in it, id 0.

    Neighbours share a dimension whose weight grows along the chain; a dimension of its own, which the last norm
    turns negative, keeps a token from repeating itself.
    """
    model = silenced(Transformer(config))
    table, norm = model.embed_tokens.weight, model.norm.weight
    for link, pair in enumerate(pairwise(chain)):
        table[list(pair), link] = link + 1.0
        norm[link] = 1.0
    for number, token in enumerate(chain, start=len(chain)):
        table[token, number] = table[token].norm()
        norm[number] = -1.0
    return model
