"""Which experts a token goes to, and with what weight.

Shapes: N = tokens (all rows flattened), D = hidden size, E = experts, K = experts per token, G = groups of experts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from entmax import entmax15, sparsemax
from torch import Tensor, nn

from model.config.network import Gate, ModelConfig

SPARSE_GATES: tuple[Gate, ...] = ("sparsemax", "entmax15")
"""Gates that give most experts a weight of exactly zero."""


class Routing(NamedTuple):
    """What the router decided; the losses are pure functions of it (`model.experts.losses`)."""

    logits_NE: Tensor
    """fp32, before the gate."""
    scores_NE: Tensor
    """fp32, after the gate, without bias; not negative."""
    weights_NK: Tensor
    """fp32, of the chosen experts, highest choice first."""
    experts_NK: Tensor
    """Ids of the chosen experts."""


def gate_scores(logits_NE: Tensor, gate: Gate) -> Tensor:
    """Scores of all experts: softmax; sigmoid (DeepSeek-V3, arXiv 2412.19437); sparsemax (arXiv 1602.02068), the
    Euclidean projection on the simplex; or entmax with alpha 1.5 (arXiv 1905.05702), between it and softmax.
    """
    if gate == "sigmoid":
        return logits_NE.sigmoid()
    if gate == "sparsemax":
        return sparsemax(logits_NE, dim=-1)
    return entmax15(logits_NE, dim=-1) if gate == "entmax15" else logits_NE.softmax(dim=-1)


def limit_groups(scores_NE: Tensor, num_groups: int, num_kept: int) -> Tensor:
    """Scores with those of experts outside the best `num_kept` groups at minus infinity.

    A group is worth the sum of its two best scores. Source: the group-limited routing of DeepSeek-V3.
    """
    scores_NGe = scores_NE.unflatten(-1, (num_groups, -1))
    worth_NG = scores_NGe.topk(min(2, scores_NGe.shape[-1]), dim=-1).values.sum(dim=-1)
    kept_NG = torch.zeros_like(worth_NG, dtype=torch.bool).scatter(-1, worth_NG.topk(num_kept, dim=-1).indices, True)
    return scores_NGe.masked_fill(~kept_NG[..., None], float("-inf")).flatten(-2)


class TopKRouter(nn.Module):
    """Gate, groups, top-k; fp32 throughout, under autocast too.

    The bias (`e_score_correction_bias`, zero at first) changes the choice alone, never the weights, and has no
    gradient: see `rebalance`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.e_score_correction_bias: Tensor | None
        self.register_buffer("e_score_correction_bias", torch.zeros(config.num_experts) if config.router_bias else None)

    def forward(self, x_ND: Tensor) -> Routing:
        config = self.config
        with torch.autocast(x_ND.device.type, enabled=False):
            logits_NE = F.linear(x_ND.float(), self.weight.float())
            scores_NE = gate_scores(logits_NE, config.gate)
            chosen_by_NE = scores_NE.detach()
            if self.e_score_correction_bias is not None:
                chosen_by_NE = chosen_by_NE + self.e_score_correction_bias
            if config.num_expert_groups > 1:
                chosen_by_NE = limit_groups(chosen_by_NE, config.num_expert_groups, config.num_groups_per_tok)
            experts_NK = chosen_by_NE.topk(config.num_experts_per_tok, dim=-1).indices
            weights_NK = scores_NE.gather(-1, experts_NK)
            if config.norm_topk_prob:
                # A bias can choose experts that a sparse gate gives no weight at all.
                sum_N1 = weights_NK.sum(dim=-1, keepdim=True)
                weights_NK = weights_NK / sum_N1.clamp(min=torch.finfo(torch.float32).tiny)
            return Routing(logits_NE, scores_NE, weights_NK, experts_NK)

    @torch.no_grad()
    def rebalance(self, counts_E: Tensor, rate: float) -> None:
        """Raise the bias of experts that got less than the mean load and lower the others', each by `rate`.

        Source: loss-free balancing (arXiv 2408.15664); the mean is subtracted afterwards, as torchtitan does, so that
        the bias cannot drift. `counts_E` are the real tokens of a whole optimizer step.
        """
        if self.e_score_correction_bias is not None:
            load_E = counts_E.float()
            self.e_score_correction_bias += rate * (load_E.mean() - load_E).sign()
            self.e_score_correction_bias -= self.e_score_correction_bias.mean()

    @torch.no_grad()
    def fade_bias(self, steps_left: int) -> None:
        """One of the steps that bring the bias to zero in equal strides; `steps_left` come after this one."""
        if self.e_score_correction_bias is not None:
            self.e_score_correction_bias *= steps_left / (steps_left + 1)
