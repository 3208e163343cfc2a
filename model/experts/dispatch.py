"""Tokens to the experts they chose, and the outputs of the experts back to the tokens.

Shapes: N = tokens, K = choices a token, M = N * K choices, E = experts, D = hidden size, P = places, which are rows
sorted by expert: at least one a choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CPU_SIZES_OF_GROUPS = 32
"""Sizes that an expert's group of rows can have up to an even share, on CPU: oneDNN builds and keeps a kernel for each
size it meets, and with groups of any size most were new at every step; see docs/log.md."""


@dataclass(frozen=True)
class Places:
    """Where each choice stands among the rows of its expert's group."""

    place_NK: Tensor
    """Of each choice."""
    choice_P: Tensor
    """Number of the choice that stands there; the first one's where none does."""
    is_choice_P: Tensor
    ends_E: Tensor
    """Place after the last of each expert, int32."""
    num_computed: int
    """How many places are computed; choices that are skipped stand behind them."""

    @classmethod
    def of(cls, experts_NK: Tensor, num_experts: int, *, skips_some: bool) -> Places:
        """A function of the choices alone.

        With `skips_some`, `experts_NK` is `num_experts` for a choice that no expert is to compute.
        """
        chosen_M = experts_NK.flatten()
        multiple = group_multiple(len(chosen_M) // num_experts) if chosen_M.device.type == "cpu" else 1
        order_M = chosen_M.argsort(stable=True)
        count_E = torch.bincount(chosen_M, minlength=num_experts + 1)
        spare_E = -count_E % multiple
        ahead_E = spare_E.cumsum(0) - spare_E
        sorted_M = torch.arange(len(chosen_M), device=chosen_M.device) + ahead_E[chosen_M[order_M]]
        place_NK = torch.empty_like(order_M).scatter_(0, order_M, sorted_M).view_as(experts_NK)
        num_places = len(chosen_M) + num_experts * (multiple - 1)
        choice_P = order_M.new_zeros(num_places).scatter_(0, sorted_M, order_M)
        is_choice_P = torch.zeros_like(choice_P, dtype=torch.bool).scatter_(0, sorted_M, True)
        ends_E = (count_E + spare_E)[:num_experts].cumsum(0).to(torch.int32)
        if not skips_some:
            ends_E[-1] = num_places
        return cls(place_NK, choice_P, is_choice_P, ends_E, int(ends_E[-1]) if skips_some else num_places)


def group_multiple(even_share: int) -> int:
    """What sizes of groups are rounded up to: a power of two, small beside an even share of the choices."""
    return 1 << max(0, (even_share // CPU_SIZES_OF_GROUPS).bit_length() - 1)


class Dispatch(torch.autograd.Function):
    """(N, D) → (P, D) of a type: each place gets its choice's token.

    A gather both ways, so that gradients add up in one order on every device; on CPU it is several times as fast as
    indexing and its backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, places: Places, dtype: torch.dtype) -> Tensor:
        ctx.place_NK, ctx.dtype = places.place_NK, x_ND.dtype
        return x_ND.to(dtype).index_select(0, places.choice_P // places.place_NK.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_PD: Tensor) -> tuple[Tensor, None, None]:
        first_N, *others = ctx.place_NK.T
        grad_ND = grad_PD.index_select(0, first_N).to(torch.promote_types(ctx.dtype, torch.float32))
        for place_N in others:
            grad_ND += grad_PD.index_select(0, place_N)
        return grad_ND.to(ctx.dtype), None, None


class Combine(torch.autograd.Function):
    """(P, D) and weights (N, K) → (N, D): the weighted sum over each token's choices, in the type of the weights."""

    @staticmethod
    def forward(ctx: Any, out_PD: Tensor, weights_NK: Tensor, places: Places) -> Tensor:
        ctx.save_for_backward(out_PD, weights_NK)
        ctx.places = places
        (first_N, *others), (weight_N, *weights) = places.place_NK.T, weights_NK.T
        mixed_ND = out_PD.index_select(0, first_N).to(weights_NK.dtype) * weight_N[:, None]
        for place_N, weight_N in zip(others, weights, strict=True):
            mixed_ND.addcmul_(out_PD.index_select(0, place_N).to(weights_NK.dtype), weight_N[:, None])
        return mixed_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, Tensor, None]:
        (out_PD, weights_NK), places = ctx.saved_tensors, ctx.places
        weight_P = weights_NK.flatten().index_select(0, places.choice_P).masked_fill_(~places.is_choice_P, 0)
        token_P = places.choice_P // weights_NK.shape[1]
        grad_PD = grad_ND.to(out_PD.dtype).index_select(0, token_P) * weight_P.to(out_PD.dtype)[:, None]
        outputs = (out_PD.index_select(0, place_N) for place_N in places.place_NK.T)
        return grad_PD, torch.stack([(grad_ND * out_ND).sum(dim=-1) for out_ND in outputs], dim=1), None
