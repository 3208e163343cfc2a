"""The next token of each row: temperature, nucleus and repetition penalty, drawn with one uniform number a row.

Shapes: B = rows, V = vocabulary, K = candidates, N = new tokens at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.config.sampling import Sampling

CANDIDATES = 64
"""Most probable ids looked at first; a nucleus that is wider costs a sort of the whole vocabulary."""


class Chooser:
    """Next ids for a batch. Each row has random numbers of its own, fixed by its seed, one a step.

    `prompts` are ids, `seeds` one a prompt; `vocab_size` is V, and `device` where scores will lie.
    """

    def __init__(
        self, sampling: Sampling, prompts: list[list[int]], seeds: Sequence[int], vocab_size: int, device: torch.device
    ) -> None:
        self.sampling = sampling
        self.uniform_BN = torch.stack([uniform(seed, sampling.max_new_tokens) for seed in seeds]).to(device)
        self.seen_BV = torch.zeros(len(prompts), vocab_size, dtype=torch.bool, device=device)
        for seen_V, prompt in zip(self.seen_BV, prompts, strict=True):
            seen_V[prompt] = True

    def choose(self, logits_BV: Tensor, step: int) -> Tensor:
        """The ids (B,) of a step, counted from 0, from scores (B, V). Raises ValueError as `sample` does."""
        sampling = self.sampling
        if sampling.repetition_penalty != 1:
            logits_BV = penalise(logits_BV, self.seen_BV, sampling.repetition_penalty)
        token_B = sample(logits_BV, sampling.temperature, sampling.top_p, self.uniform_BN[:, step])
        if sampling.repetition_penalty != 1:
            self.seen_BV.scatter_(1, token_B[:, None], True)
        return token_B

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these, by number."""
        self.uniform_BN, self.seen_BV = self.uniform_BN[rows], self.seen_BV[rows]


def uniform(seed: int, count: int) -> Tensor:
    """Random numbers in [0, 1), fp64; more of them begin with the same ones."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def penalise(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Scores of seen ids, divided by the penalty above 0 and multiplied by it below."""
    return torch.where(seen_BV, torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty), logits_BV)


def sample(logits_BV: Tensor, temperature: float, top_p: float, uniform_B: Tensor) -> Tensor:
    """One id a row (B,) from scores (B, V): the best at temperature 0, else one of the smallest set that holds `top_p`.

    `uniform_B`, in [0, 1), is where in the running sum of that set's probabilities the id lies. Raises ValueError when
    a row's best score is not finite.
    """
    best_B1, choice_B1 = logits_BV.max(dim=-1, keepdim=True)
    if not best_B1.isfinite().all():
        raise ValueError(
            f"the model's best score is {float(best_B1[~best_B1.isfinite()][0])}; has its training diverged?"
        )
    if temperature == 0:
        return choice_B1[:, 0]
    # Taking the best score off first leaves the result as it is; with it and the floor no temperature is too small.
    share_BV = ((logits_BV - best_B1) / max(temperature, torch.finfo(torch.float32).tiny)).softmax(dim=-1)
    if top_p == 1:
        return locate(share_BV, uniform_B)
    share_BK, id_BK = share_BV.topk(min(CANDIDATES, share_BV.shape[1]), dim=-1)
    token_B = sample_nucleus(share_BK, id_BK, top_p, uniform_B)
    # Decided row by row: a row must not be drawn in another way because of its neighbours.
    wide_B = share_BK.sum(dim=-1, dtype=torch.float64) < top_p
    if wide_B.any():
        token_B[wide_B] = sample_nucleus(*share_BV[wide_B].sort(descending=True), top_p, uniform_B[wide_B])
    return token_B


def sample_nucleus(share_BK: Tensor, id_BK: Tensor, top_p: float, uniform_B: Tensor) -> Tensor:
    """One id a row (B,) of `id_BK`, at `uniform_B` of those before which less than `top_p` lies; `share_BK` falls."""
    before_BK = share_BK.cumsum(dim=-1, dtype=torch.float64) - share_BK
    return id_BK.gather(1, locate(share_BK * (before_BK < top_p), uniform_B)[:, None])[:, 0]


def locate(share_BK: Tensor, uniform_B: Tensor) -> Tensor:
    """Where the running sum of each row's shares passes `uniform_B` of their total (inverse transform sampling)."""
    sum_BK = share_BK.cumsum(dim=-1, dtype=torch.float64)
    return torch.searchsorted(sum_BK, uniform_B[:, None] * sum_BK[:, -1:], right=True)[:, 0]
