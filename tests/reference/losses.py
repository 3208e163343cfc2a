"""Losses term by term, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from model.experts.router import Routing
from model.network.transformer import Transformer
from model.tokens.packing import IGNORED


def target_nats(logits: Tensor, label: int) -> float:
    """-log p of one target."""
    values = [float(value) for value in logits.double()]
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values)) - values[label]


def scores_of_rows(model: Transformer, ids_BT: Tensor, labels_BT: Tensor, segment_BT: Tensor) -> list[list[float]]:
    """Nats of each slot of each row, every row on its own; 0.0 where nothing is predicted."""
    scores = []
    with torch.no_grad():
        for ids_T, labels_T, segment_T in zip(ids_BT, labels_BT, segment_BT, strict=True):
            logits_TV = model(ids_T[None], segment_T[None])[0]
            pairs = zip(logits_TV, labels_T.tolist(), strict=True)
            scores.append([0.0 if label == IGNORED else target_nats(logits, label) for logits, label in pairs])
    return scores


def looped_balance_loss(routing: Sequence[Routing], real: Sequence[bool], num_experts: int) -> float:
    """E * sum over experts of (share of assignments) * (mean probability), mean over layers."""
    layers = []
    for layer in routing:
        chosen = [layer.experts_NK[n].tolist() for n, is_real in enumerate(real) if is_real]
        kept = [layer.scores_NE[n].double() for n, is_real in enumerate(real) if is_real]
        probability = [(scores / scores.sum()).tolist() for scores in kept]
        assignments = [expert for experts in chosen for expert in experts]
        terms = [
            assignments.count(e) / len(assignments) * sum(p[e] for p in probability) / len(probability)
            for e in range(num_experts)
        ]
        layers.append(num_experts * sum(terms))
    return sum(layers) / len(layers)


def looped_z_loss(routing: Sequence[Routing], real: Sequence[bool]) -> float:
    squares = [
        math.log(sum(math.exp(float(logit)) for logit in layer.logits_NE[n])) ** 2
        for layer in routing
        for n, is_real in enumerate(real)
        if is_real
    ]
    return sum(squares) / len(squares)
