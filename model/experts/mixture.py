"""SwiGLU experts, shared and routed, and the dense block that can stand in their place.

Shapes: N = tokens (all rows flattened), D = hidden size, E = experts, K = experts per token, F = expert width,
P = places, rows sorted by expert.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config.network import ExpertPath, ModelConfig
from model.experts.dispatch import Combine, Dispatch, Places
from model.experts.router import SPARSE_GATES, Routing, TopKRouter
from model.precision import compute_dtype


def looped_mm(x_PD: Tensor, weight_EDF: Tensor, *, offs: Tensor) -> Tensor:
    """What `grouped_mm` computes, one product after the other: the rows up to `offs[e]` times matrix e."""
    products, start = [], 0
    for end, weight_DF in zip(offs.tolist(), weight_EDF, strict=True):
        products.append(torch.mm(x_PD[start:end], weight_DF))
        start = end
    return torch.cat(products)


PRODUCTS: dict[ExpertPath, Callable[..., Tensor]] = {"grouped": F.grouped_mm, "loop": looped_mm}
"""(P, D) rows sorted by expert, (E, D, F) and the place after each expert's last row, `offs` (E,) int32 → (P, F)."""


class RoutedExperts(nn.Module):
    """SwiGLU experts with stacked weights; no token is ever dropped.

    Choices are sorted by expert, multiplied group by group, and put back. The sum over a token's experts has a fixed
    order, so a run repeats bit for bit. Choices without weight, which sparse gates make, are not computed. Source of
    the layout: the dropless path of torchtitan and transformers (`grouped_mm`).
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
        if self.skips_weightless:
            experts_NK = experts_NK.masked_fill(weights_NK == 0, self.num_experts)
        places = Places.of(experts_NK, self.num_experts, skips_some=self.skips_weightless)
        dtype = compute_dtype(x_ND)
        sorted_PD = Dispatch.apply(x_ND, places, dtype)[: places.num_computed]
        gate_up_ED2F, down_EFD = self.gate_up_proj.to(dtype).mT, self.down_proj.to(dtype).mT
        gate_PF, up_PF = self.product(sorted_PD, gate_up_ED2F, offs=places.ends_E).chunk(2, dim=-1)
        out_PD = self.product(F.silu(gate_PF) * up_PF, down_EFD, offs=places.ends_E)
        if self.skips_weightless:
            out_PD = F.pad(out_PD, (0, 0, 0, len(places.choice_P) - places.num_computed))
        mixed_ND: Tensor = Combine.apply(out_PD, weights_NK, places)
        return mixed_ND.to(x_ND.dtype)


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
