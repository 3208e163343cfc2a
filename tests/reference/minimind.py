"""MiniMind's published forward pass from a state dict in its own names, one row, token and head at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.reference.moe import swiglu


@dataclass(frozen=True)
class Shape:
    """What the reference needs to know of a model; `num_experts` is 0 for a dense one."""

    num_layers: int
    num_heads: int
    num_key_heads: int
    head_dim: int
    eps: float
    rope_theta: float
    num_experts: int = 0
    top_k: int = 1
    renormalise: bool = True


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x / math.sqrt(float((x**2).mean()) + eps)


def turned(x_C: Tensor, position: int, theta: float) -> Tensor:
    """Pairs (i, i + half) as complex numbers, each turned by its own angle."""
    half = len(x_C) // 2
    pairs = torch.complex(x_C[:half], x_C[half:])
    angles = torch.tensor([position * theta ** (-2 * i / len(x_C)) for i in range(half)])
    pairs = pairs * torch.polar(torch.ones(half), angles.float())
    return torch.cat([pairs.real, pairs.imag])


def attention(x_TD: Tensor, state: Mapping[str, Tensor], prefix: str, shape: Shape) -> Tensor:
    def head(part: str, x_D: Tensor, number: int) -> Tensor:
        rows = slice(number * shape.head_dim, (number + 1) * shape.head_dim)
        return state[f"{prefix}.{part}_proj.weight"][rows] @ x_D

    def placed(part: str, position: int, number: int) -> Tensor:
        normed = rms_norm(head(part, x_TD[position], number), state[f"{prefix}.{part}_norm.weight"], shape.eps)
        return turned(normed, position, shape.rope_theta)

    mixed = []
    for position in range(len(x_TD)):
        heads = []
        for number in range(shape.num_heads):
            shared = number // (shape.num_heads // shape.num_key_heads)
            query = placed("q", position, number)
            scores = torch.stack([query @ placed("k", p, shared) for p in range(position + 1)])
            weights = (scores / math.sqrt(shape.head_dim)).softmax(dim=0)
            heads.append(sum(w * head("v", x_TD[p], shared) for p, w in enumerate(weights)))
        mixed.append(state[f"{prefix}.o_proj.weight"] @ torch.cat(heads))
    return torch.stack(mixed)


def block(x_D: Tensor, state: Mapping[str, Tensor], prefix: str) -> Tensor:
    gate, up, down = (state[f"{prefix}.{part}_proj.weight"] for part in ("gate", "up", "down"))
    return swiglu(x_D, torch.cat([gate, up]), down)


def mixture(x_D: Tensor, state: Mapping[str, Tensor], prefix: str, shape: Shape) -> Tensor:
    scores = (state[f"{prefix}.gate.weight"] @ x_D).softmax(dim=0)
    best = sorted(range(shape.num_experts), key=lambda expert: -float(scores[expert]))[: shape.top_k]
    total = sum(scores[expert] for expert in best) if shape.renormalise else 1.0
    return sum(scores[expert] / total * block(x_D, state, f"{prefix}.experts.{expert}") for expert in best)


def logits(ids: list[int], state: Mapping[str, Tensor], shape: Shape) -> Tensor:
    """(T, V) for one row of ids."""
    x_TD = state["model.embed_tokens.weight"][ids]
    for layer in range(shape.num_layers):
        prefix = f"model.layers.{layer}"

        def normed(x_TD: Tensor, name: str, prefix: str = prefix) -> Tensor:
            return torch.stack([rms_norm(x_D, state[f"{prefix}.{name}.weight"], shape.eps) for x_D in x_TD])

        x_TD = x_TD + attention(normed(x_TD, "input_layernorm"), state, f"{prefix}.self_attn", shape)
        feed = [
            mixture(x_D, state, f"{prefix}.mlp", shape) if shape.num_experts else block(x_D, state, f"{prefix}.mlp")
            for x_D in normed(x_TD, "post_attention_layernorm")
        ]
        x_TD = x_TD + torch.stack(feed)
    return torch.stack([state["lm_head.weight"] @ rms_norm(x_D, state["model.norm.weight"], shape.eps) for x_D in x_TD])
