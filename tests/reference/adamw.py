"""AdamW as its paper writes it (arXiv 1711.05101), in float64."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class PlainAdamW:
    """Weights by name and, per step, their gradients; only names in `decayed` shrink."""

    weights: dict[str, Tensor]
    decayed: set[str]
    beta1: float
    beta2: float
    weight_decay: float
    eps: float = 1e-8
    steps: int = 0
    first: dict[str, Tensor] = field(default_factory=dict)
    second: dict[str, Tensor] = field(default_factory=dict)

    def step(self, gradients: dict[str, Tensor], lr: float) -> None:
        self.steps += 1
        for name, gradient in gradients.items():
            g = gradient.double()
            self.first[name] = self.beta1 * self.first.get(name, 0 * g) + (1 - self.beta1) * g
            self.second[name] = self.beta2 * self.second.get(name, 0 * g) + (1 - self.beta2) * g * g
            mean = self.first[name] / (1 - self.beta1**self.steps)
            spread = self.second[name] / (1 - self.beta2**self.steps)
            shrink = 1 - lr * self.weight_decay if name in self.decayed else 1.0
            self.weights[name] = self.weights[name] * shrink - lr * mean / (spread.sqrt() + self.eps)
