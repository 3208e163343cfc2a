"""Top-k router and SwiGLU experts.

Shapes: N = tokens (all rows flattened), D = hidden size, E = experts, K = experts per token, F = expert width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig


class Routing(NamedTuple):
    """What the router decided; the losses are pure functions of it (`model.losses`)."""

    logits_NE: Tensor
    """fp32, before the softmax."""
    weights_NK: Tensor
    """fp32, renormalised to sum to 1 over the chosen experts."""
    experts_NK: Tensor
    """Ids of the chosen experts."""


class TopKRouter(nn.Module):
    """Softmax over all experts, top-k, renormalise; fp32 throughout, whatever autocast says."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.top_k = config.num_experts_per_tok
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))

    def forward(self, x_ND: Tensor) -> Routing:
        with torch.autocast(x_ND.device.type, enabled=False):
            logits_NE = F.linear(x_ND.float(), self.weight.float())
            scores_NE = logits_NE.softmax(dim=-1)
            top_NK, experts_NK = scores_NE.topk(self.top_k, dim=-1)
            return Routing(logits_NE, top_NK / top_NK.sum(dim=-1, keepdim=True), experts_NK)


class RoutedExperts(nn.Module):
    """SwiGLU experts with stacked weights, run as grouped matrix products; no token is ever dropped.

    Tokens are sorted by expert, multiplied group by group, and put back. The gather and scatter are inverse
    permutations, so the sum over a token's experts has a fixed order and a run repeats bit for bit.
    Source of the layout: the dropless path of torchtitan and transformers (`grouped_mm`).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, hidden, width = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.num_experts = experts
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * width, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, width))

    def forward(self, x_ND: Tensor, weights_NK: Tensor, experts_NK: Tensor) -> Tensor:
        top_k = experts_NK.shape[1]
        order = experts_NK.flatten().argsort(stable=True)
        group_ends_E = torch.bincount(experts_NK.flatten(), minlength=self.num_experts).cumsum(0).to(torch.int32)
        dtype = compute_dtype(x_ND)
        sorted_MD = x_ND.to(dtype)[order // top_k]
        gate_up_M2F = F.grouped_mm(sorted_MD, self.gate_up_proj.to(dtype).transpose(1, 2), offs=group_ends_E)
        gate_MF, up_MF = gate_up_M2F.chunk(2, dim=-1)
        out_MD = F.grouped_mm(F.silu(gate_MF) * up_MF, self.down_proj.to(dtype).transpose(1, 2), offs=group_ends_E)
        back_NKD = out_MD[order.argsort()].view(-1, top_k, x_ND.shape[1])
        return torch.einsum("nkd,nk->nd", back_NKD, weights_NK.to(dtype)).to(x_ND.dtype)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type autocast would use for `x`; grouped products are not on autocast's list and must be told."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class SparseMoE(nn.Module):
    """Router and experts; stands where a dense transformer has its feed-forward block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = TopKRouter(config)
        self.experts = RoutedExperts(config)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Routing]:
        x_ND = x_BTD.flatten(0, 1)
        routing = self.gate(x_ND)
        return self.experts(x_ND, routing.weights_NK, routing.experts_NK).view_as(x_BTD), routing
