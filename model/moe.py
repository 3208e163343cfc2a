"""SwiGLU experts, shared and routed, and the dense block that can stand in their place.

Shapes: N = tokens (all rows flattened), D = hidden size, E = experts, K = experts per token, F = expert width,
M = tokens times choices, sorted by expert.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ExpertPath, ModelConfig
from model.router import SPARSE_GATES, Routing, TopKRouter


def grouped_product(x_MD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """Each group of rows times its expert's matrix, transposed, in one kernel."""
    return F.grouped_mm(x_MD, weight_EFD.transpose(1, 2), offs=ends_E)


def looped_product(x_MD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """The same, one product after the other."""
    ends = ends_E.tolist()
    starts = [0, *ends[:-1]]
    return torch.cat([F.linear(x_MD[s:e], w_FD) for s, e, w_FD in zip(starts, ends, weight_EFD, strict=True)])


PRODUCTS: dict[ExpertPath, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "grouped": grouped_product,
    "loop": looped_product,
}


class RoutedExperts(nn.Module):
    """SwiGLU experts with stacked weights; no token is ever dropped.

    Tokens are sorted by expert, multiplied group by group, and put back. The gather and scatter are inverse
    permutations, so the sum over a token's experts has a fixed order and a run repeats bit for bit. Choices without
    weight, which sparse gates make, are not computed. Source of the layout: the dropless path of torchtitan and
    transformers (`grouped_mm`).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, hidden, width = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.num_experts = experts
        self.skips_weightless = config.gate in SPARSE_GATES
        self.product = PRODUCTS["grouped" if config.expert_path == "auto" else config.expert_path]
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * width, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, width))

    def forward(self, x_ND: Tensor, weights_NK: Tensor, experts_NK: Tensor) -> Tensor:
        top_k = experts_NK.shape[1]
        chosen_M = experts_NK.flatten()
        if self.skips_weightless:  # they go behind the last expert
            chosen_M = chosen_M.masked_fill(weights_NK.flatten() == 0, self.num_experts)
        order_M = chosen_M.argsort(stable=True)
        ends_E = torch.bincount(chosen_M, minlength=self.num_experts)[: self.num_experts].cumsum(0).to(torch.int32)
        computed = int(ends_E[-1]) if self.skips_weightless else len(order_M)
        dtype = compute_dtype(x_ND)
        sorted_MD = x_ND.to(dtype)[order_M[:computed] // top_k]
        gate_MF, up_MF = self.product(sorted_MD, self.gate_up_proj.to(dtype), ends_E).chunk(2, dim=-1)
        out_MD = self.product(F.silu(gate_MF) * up_MF, self.down_proj.to(dtype), ends_E)
        out_MD = F.pad(out_MD, (0, 0, 0, len(order_M) - computed))
        back_NKD = out_MD[order_M.argsort()].view(-1, top_k, x_ND.shape[1])
        return torch.einsum("nkd,nk->nd", back_NKD, weights_NK.to(dtype)).to(x_ND.dtype)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type autocast would use for `x`; grouped products are not on autocast's list and must be told."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class FeedForward(nn.Module):
    """One SwiGLU block (arXiv 2002.05202) that every token goes through; parameter names are those of Qwen3."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        down: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return down


class SparseMoE(nn.Module):
    """Router, routed experts and, if there are any, shared experts that see every token as one block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = TopKRouter(config)
        self.experts = RoutedExperts(config)
        shared = config.num_shared_experts * config.moe_intermediate_size
        self.shared_experts = FeedForward(config.hidden_size, shared) if shared else None

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Routing]:
        x_ND = x_BTD.flatten(0, 1)
        routing = self.gate(x_ND)
        mixed_BTD = self.experts(x_ND, routing.weights_NK, routing.experts_NK).view_as(x_BTD)
        if self.shared_experts is not None:
            mixed_BTD = mixed_BTD + self.shared_experts(x_BTD)
        return mixed_BTD, routing


def feed_forward(config: ModelConfig) -> SparseMoE | FeedForward:
    """What stands behind a layer's attention. The dense block is as wide as all that a token passes in the mixture."""
    return FeedForward(config.hidden_size, config.active_intermediate_size) if config.dense else SparseMoE(config)
