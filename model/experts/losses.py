"""Losses of the router, as pure functions: load balance and router z.

Shapes: N = tokens, E = experts, K = experts per token, L = layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.experts.router import Routing


def expert_counts(routing: list[Routing], real_N: Tensor, num_experts: int) -> Tensor:
    """How many real tokens each expert got, (L, E) int64; padding is not counted, gradients do not flow."""
    return torch.stack([torch.bincount(r.experts_NK[real_N].flatten(), minlength=num_experts) for r in routing])


def balance_loss(routing: list[Routing], real_N: Tensor, counts_LE: Tensor) -> Tensor:
    """Load-balance loss of Switch (arXiv 2101.03961), 1.0 when balanced, E when one expert takes all.

    Mean over layers of E * sum_i f_i p_i: f is the share of assignments and comes from `counts_LE`, which the
    caller accumulates over the whole optimizer step (global-batch scope, arXiv 2501.11873); p is the mean
    router probability over this call's real tokens, for gates that do not sum to 1 after making them.
    """
    losses = []
    for layer, counts_E in zip(routing, counts_LE, strict=True):
        share_E = counts_E.float() / counts_E.sum().clamp(min=1)
        scores_NE = layer.scores_NE[real_N]
        mean_E = (scores_NE / scores_NE.sum(dim=-1, keepdim=True)).mean(dim=0)
        losses.append(len(counts_E) * (share_E * mean_E).sum())
    return torch.stack(losses).mean()


def router_z_loss(routing: list[Routing], real_N: Tensor) -> Tensor:
    """Mean of logsumexp(router logits)^2 over layers and real tokens (ST-MoE, arXiv 2202.08906)."""
    return torch.stack([r.logits_NE[real_N].logsumexp(dim=-1).square().mean() for r in routing]).mean()
