"""Generation without a cache and without batches: every step reads all ids again and chooses from a list of scores."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch

from model.network.transformer import Transformer


def slow_generate(
    model: Transformer,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    stop_ids: Collection[int] = (),
    seed: int = 0,
) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    ids = list(prompt)[-(model.config.max_position_embeddings - max_new_tokens) :]
    new: list[int] = []
    while len(new) < max_new_tokens and not (new and new[-1] in stop_ids):
        with torch.no_grad():
            scores = model(torch.tensor([ids + new]))[0, -1].tolist()
        scores = penalised(scores, ids + new, repetition_penalty)
        number = float(torch.rand(1, generator=generator, dtype=torch.float64))
        new.append(chosen(scores, temperature, top_p, number))
    return new


def penalised(scores: Sequence[float], ids: Sequence[int], penalty: float) -> list[float]:
    """A seen id's score gets worse, once, however often it was seen."""
    result = list(scores)
    for seen in set(ids):
        result[seen] = scores[seen] * penalty if scores[seen] < 0 else scores[seen] / penalty
    return result


def chosen(scores: Sequence[float], temperature: float, top_p: float, number: float) -> int:
    """Lay the candidates' probabilities end to end, most probable first unless all are candidates, and see where
    `number` of their total falls."""
    ids = range(len(scores))
    if temperature == 0:
        return max(ids, key=lambda token: scores[token])
    best = max(scores)
    weights = [math.exp((score - best) / temperature) for score in scores]
    probability = [weight / sum(weights) for weight in weights]
    candidates = list(ids) if top_p == 1 else nucleus(probability, top_p)
    left = number * sum(probability[token] for token in candidates)
    for token in candidates:
        left -= probability[token]
        if left < 0:
            return token
    return candidates[-1]


def nucleus(probability: Sequence[float], top_p: float) -> list[int]:
    """The fewest ids that hold `top_p`, most probable first."""
    kept: list[int] = []
    for token in sorted(range(len(probability)), key=lambda token: -probability[token]):
        if sum(probability[other] for other in kept) >= top_p:
            break
        kept.append(token)
    return kept
