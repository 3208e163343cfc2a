"""Shapes of models and batches for benchmarks, by name."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from model.config.network import ModelConfig

MODELS = {
    "small": ModelConfig(
        hidden_size=256, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4, head_dim=32,
        num_experts=8, num_experts_per_tok=2, moe_intermediate_size=416,
    ),
    "large": ModelConfig(
        hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4, head_dim=64,
        num_experts=8, num_experts_per_tok=2, moe_intermediate_size=832,
    ),
}  # fmt: skip
MODELS["many"] = replace(MODELS["small"], num_experts=64)
SHAPES = {
    "small": ("small", 16, 512), "short": ("small", 32, 256), "long": ("small", 8, 1024), "longest": ("small", 4, 2048),
    "large": ("large", 4, 512), "many": ("many", 16, 512),
}  # fmt: skip
"""Model, rows and tokens per row."""


@dataclass(frozen=True)
class Shape:
    """A model and a batch of `rows` by `tokens`."""

    name: str
    model: ModelConfig
    rows: int
    tokens: int

    @classmethod
    def of(cls, name: str) -> Shape:
        model, rows, tokens = SHAPES[name]
        return cls(name, MODELS[model], rows, tokens)

    def ids(self) -> torch.Tensor:
        """Random ids, (rows, tokens), always the same."""
        return torch.randint(
            0, self.model.vocab_size, (self.rows, self.tokens), generator=torch.Generator().manual_seed(0)
        )
