"""Muon for matrices and AdamW for the rest, as one optimizer.

Muon turns the momentum of a matrix into the nearest matrix whose singular values are all 1 and moves along it
(Keller Jordan, https://kellerjordan.github.io/posts/muon/). The update is scaled to the size of AdamW's, so that
learning rate and decay mean the same for both (Moonlight, arXiv 2502.16982). `torch.optim.Muon` takes one 2-D matrix
at a time; experts are stacks of matrices, and all matrices of one shape go through one batched product here.

Shapes: B = matrices of one shape, M = shorter side, N = longer side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from model.precision import product_dtype

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of Jordan's quintic: steep at 0, so that few iterations lift small singular values; large ones stay in 0.7 to 1.2."""
ITERATIONS = 5
UPDATE_RMS = 0.2
"""Root mean square of AdamW's update over its learning rate, as Moonlight measured it."""
SMALLEST_NORM = 1e-7
"""Matrices with a smaller norm are divided by this one, so that zeros stay zeros."""
ADAMW_EPS = 1e-8
"""As in torch.optim.AdamW."""


def orthogonalise(matrix_BMN: Tensor) -> Tensor:
    """Each matrix with its singular values moved close to 1, by Newton-Schulz iteration; M must not exceed N.

    Computed in bf16, or in fp32 on a CPU that has no units for bf16, and returned so; a matrix of zeros stays one.
    """
    a, b, c = COEFFICIENTS
    x_BMN = matrix_BMN.to(product_dtype("auto", matrix_BMN.device))
    x_BMN = x_BMN / x_BMN.norm(dim=(-2, -1), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram_BMM = torch.bmm(x_BMN, x_BMN.mT)
        gram_BMM = torch.baddbmm(gram_BMM, gram_BMM, gram_BMM, beta=b, alpha=c)
        x_BMN = torch.baddbmm(x_BMN, gram_BMM, x_BMN, beta=a)
    return x_BMN


def wide_matrices(tensor: Tensor, stacked: int) -> Tensor:
    """A view (B, M, N) of the matrices of a weight: of each expert of a stack, of each of the `stacked` parts of its
    rows, laid on their side if they are tall.
    """
    rows, cols = tensor.shape[-2] // stacked, tensor.shape[-1]
    matrices = tensor.view(-1, rows, cols)
    return matrices.mT if rows > cols else matrices


class MuonAdamW(torch.optim.Optimizer):
    """Muon for groups with `stacked` of 1 or more, AdamW for groups without.

    `stacked` is how many matrices lie above one another in the last two dimensions of a weight: 2 for gate and up
    projections. The state of a matrix is its `momentum_buffer`, half as large as AdamW's. `lr` and `weight_decay` hold
    for groups without their own, `betas` are AdamW's and `momentum` is Muon's.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        momentum: float,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "momentum": momentum, "weight_decay": weight_decay, "stacked": 0, "fused": True,
        }  # fmt: skip
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One update; parameters without a gradient stay as they are. Returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if not group["stacked"]:
                self._step_adamw(group)
        self._step_muon([group for group in self.param_groups if group["stacked"]])
        return loss

    def _step_adamw(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        for p in parameters:
            if not self.state[p]:
                step = torch.zeros((), dtype=torch.float32, device=p.device)
                self.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        states = [self.state[p] for p in parameters]
        adamw(
            parameters,
            [p.grad for p in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=ADAMW_EPS,
            maximize=False,
        )

    def _step_muon(self, groups: list[dict[str, Any]]) -> None:
        """Collect what has one shape, orthogonalise it at once, and move each weight along its part."""
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor, dict[str, Any]]]] = {}
        for group in groups:
            for p in group["params"]:
                if p.grad is not None:
                    weight_BMN = wide_matrices(p, group["stacked"])
                    direction_BMN = wide_matrices(self._direction(p, p.grad, group["momentum"]), group["stacked"])
                    by_shape.setdefault(weight_BMN.shape[1:], []).append((weight_BMN, direction_BMN, group))
        for (_, longer), members in by_shape.items():
            directions = [direction_BMN for _, direction_BMN, _ in members]
            updates = orthogonalise(torch.cat(directions)).split([len(d) for d in directions])
            for (weight_BMN, _, group), update_BMN in zip(members, updates, strict=True):
                weight_BMN.mul_(1 - group["lr"] * group["weight_decay"])
                weight_BMN.add_(update_BMN, alpha=-group["lr"] * UPDATE_RMS * math.sqrt(longer))

    def _direction(self, p: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        """Nesterov momentum as a mean of gradients, in the type of products; shaped as the weight."""
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer: Tensor = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum).to(product_dtype("auto", gradient.device))
