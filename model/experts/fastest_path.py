"""Which way of computing experts is the fastest here: measured, as it depends on the machine and on the sizes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import torch

from model.config.network import ExpertPath, ModelConfig
from model.config.training import Precision
from model.experts.mixture import PRODUCTS, RoutedExperts
from model.precision import autocast

ROUNDS = 3
WORTH_CHANGING = 0.97
"""Another path than grouped products must take less than this share of their time: nearer ones a probe cannot tell
apart."""


def expert_seconds(
    config: ModelConfig, num_tokens: int, precision: Precision, device: torch.device
) -> dict[ExpertPath, float]:
    """Seconds of forward and backward of one layer's experts of `config` on `device`, by path; the best of some rounds.

    The `num_tokens` tokens are routed evenly. Paths take turns, so that a change of the machine affects all alike; the
    first round, which warms up, does not count.
    """
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(num_tokens, config.hidden_size, generator=generator).to(device)
    experts_NK = (
        torch.rand(num_tokens, config.num_experts, generator=generator).topk(config.num_experts_per_tok).indices
    )
    weights_NK = torch.full(experts_NK.shape, 1 / config.num_experts_per_tok, device=device)
    layers = {path: RoutedExperts(replace(config, expert_path=path)) for path in PRODUCTS}
    for layer in layers.values():
        for parameter in layer.to(device).parameters():
            torch.nn.init.constant_(parameter, 0.01)
    best = dict.fromkeys(layers, float("inf"))
    for number in range(1 + ROUNDS):
        for path, layer in layers.items():
            seconds = step_seconds(layer, precision, x_ND, weights_NK, experts_NK.to(device))
            if number:
                best[path] = min(best[path], seconds)
    return best


def step_seconds(
    layer: RoutedExperts, precision: Precision, x_ND: torch.Tensor, weights_NK: torch.Tensor, experts_NK: torch.Tensor
) -> float:
    """Of one forward and backward pass of `layer` as the trainer runs them in `precision`, waited for to the end.

    Inputs are those of `RoutedExperts.forward`: tokens `x_ND`, `weights_NK` and ids `experts_NK` of their choices.
    """
    layer.zero_grad(set_to_none=True)
    inputs = x_ND.detach().requires_grad_()
    started = time.perf_counter()
    with autocast(x_ND.device, precision):
        total = layer(inputs, weights_NK, experts_NK).float().sum()
    total.backward()
    assert inputs.grad is not None
    float(inputs.grad.sum())
    return time.perf_counter() - started


def fastest(seconds: Mapping[ExpertPath, float]) -> ExpertPath:
    """Grouped products, unless another path is clearly faster."""
    best = min(seconds, key=lambda path: seconds[path])
    return best if seconds[best] < WORTH_CHANGING * seconds["grouped"] else "grouped"
