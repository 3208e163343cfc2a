"""Muon one matrix at a time, in fp32."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


def newton_schulz(matrix: Tensor) -> Tensor:
    """Jordan's five quintic steps on one 2-D matrix of any shape."""
    x = matrix.float()
    x = x / max(float(x.norm()), 1e-7)
    for _ in range(5):
        left = x @ x.T
        x = 3.4445 * x - 4.7750 * (left @ x) + 2.0315 * (left @ left @ x)
    return x


def matrices_of(name: str, weight: Tensor) -> list[Tensor]:
    """The 2-D matrices of a weight, as views: of each expert, gate and up apart."""
    stack = list(weight) if weight.dim() == 3 else [weight]
    return [part for matrix in stack for part in (matrix.chunk(2) if name.endswith("gate_up_proj") else [matrix])]


@dataclass
class PlainMuon:
    """Matrices by name and, per step, their gradients."""

    weights: dict[str, Tensor]
    momentum: float
    weight_decay: float
    memory: dict[str, Tensor] = field(default_factory=dict)

    def step(self, gradients: dict[str, Tensor], lr: float) -> None:
        for name, gradient in gradients.items():
            past = self.memory.get(name, torch.zeros_like(gradient))
            self.memory[name] = self.momentum * past + (1 - self.momentum) * gradient
            ahead = self.momentum * self.memory[name] + (1 - self.momentum) * gradient
            weight = self.weights[name]
            for matrix, direction in zip(matrices_of(name, weight), matrices_of(name, ahead), strict=True):
                update = 0.2 * math.sqrt(max(direction.shape)) * newton_schulz(direction)
                matrix.copy_(matrix - lr * self.weight_decay * matrix - lr * update)
