"""The output head and its loss in one: no more than a chunk of logits exists at a time, forward or backward.

Shapes: M = supervised tokens, D = hidden size, V = vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.precision import compute_dtype

CHUNK_TOKENS = 1024
"""Tokens whose logits exist at once; whole-batch logits cost more in page faults than in arithmetic."""
ROWS_MULTIPLE = 128
"""What the rows of the last chunk are rounded up to: their number changes from step to step, and oneDNN builds and
keeps kernels for each size of a product that it meets."""


class LinearCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass, while a chunk's probabilities exist: the backward pass only scales the gradients.

    Source of the idea: Liger Kernel (arXiv 2410.10989).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_MD: Tensor, weight_VD: Tensor, labels_M: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        table_VD = weight_VD.to(dtype)
        hidden_grad_MD = torch.empty_like(hidden_MD, dtype=dtype)
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
        total = torch.zeros((), device=hidden_MD.device)
        nats_M = torch.empty(len(labels_M), device=hidden_MD.device)
        for start in range(0, len(hidden_MD), CHUNK_TOKENS):
            here = slice(start, start + CHUNK_TOKENS)
            real = len(labels_M[here])
            spare = (0, 0, 0, -real % ROWS_MULTIPLE)
            chunk_CD, labels_C1 = F.pad(hidden_MD[here].to(dtype), spare), F.pad(labels_M[here, None], spare)
            scores_CV = torch.log_softmax(chunk_CD @ table_VD.T, dim=-1, dtype=torch.float32)
            label_scores_C = scores_CV.gather(1, labels_C1)[:real, 0]
            total -= label_scores_C.sum()
            nats_M[here] = -label_scores_C
            excess_CV = scores_CV.exp_().scatter_add_(1, labels_C1, -torch.ones_like(labels_C1, dtype=torch.float32))
            excess_CV = excess_CV.to(dtype)
            excess_CV[real:] = 0
            hidden_grad_MD[here] = (excess_CV @ table_VD)[:real]
            weight_grad_VD += excess_CV.T @ chunk_CD
        ctx.save_for_backward(hidden_grad_MD, weight_grad_VD)
        ctx.types = hidden_MD.dtype, weight_VD.dtype
        ctx.mark_non_differentiable(nats_M)
        return total, nats_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _of_nats: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_grad_MD, weight_grad_VD = ctx.saved_tensors
        return (hidden_grad_MD.float() * scale).to(ctx.types[0]), (weight_grad_VD * scale).to(ctx.types[1]), None, None


def cross_entropy_sum(hidden_MD: Tensor, weight_VD: Tensor, labels_M: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of -log p of the labels, in fp32, nats, and its terms, (M,), which have no gradient; the caller divides the
    sum once by the step's token count.

    Hidden states (M, D), embedding table (V, D), ids (M,). Products are in the type of autocast, all else in fp32.
    """
    total, nats_M = LinearCrossEntropy.apply(hidden_MD, weight_VD, labels_M, compute_dtype(hidden_MD))
    return total, nats_M
