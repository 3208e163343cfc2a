"""Experts one token and one choice at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def swiglu(x_D: Tensor, gate_up_2FD: Tensor, down_DF: Tensor) -> Tensor:
    gate_F, up_F = (gate_up_2FD @ x_D).chunk(2)
    return down_DF @ (gate_F * gate_F.sigmoid() * up_F)


def looped_experts(
    x_ND: Tensor, gate_up_E2FD: Tensor, down_EDF: Tensor, weights_NK: Tensor, experts_NK: Tensor
) -> Tensor:
    outputs = []
    for x_D, weights_K, experts_K in zip(x_ND, weights_NK, experts_NK.tolist(), strict=True):
        parts = [
            weight * swiglu(x_D, gate_up_E2FD[expert], down_EDF[expert])
            for weight, expert in zip(weights_K, experts_K, strict=True)
        ]
        outputs.append(torch.stack(parts).sum(dim=0))
    return torch.stack(outputs)
