"""Metrics of a language model as `evaluate` modules; they are defined here, so nothing is fetched."""

from __future__ import annotations

import math
from collections.abc import Sequence

import datasets
import evaluate


class LanguageModelLoss(evaluate.Metric):
    """Loss, perplexity and bits per byte from per-document sums.

    Each document gives its nats, its targets and the bytes of its target text; ratios are formed over all of them
    once. Bits per byte compares across tokenizers, the other two do not.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="",
            inputs_description="nats, tokens, num_bytes: one number a document",
            features=datasets.Features(
                {
                    "nats": datasets.Value("float64"),
                    "tokens": datasets.Value("int64"),
                    "num_bytes": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, nats: Sequence[float], tokens: Sequence[int], num_bytes: Sequence[int]) -> dict[str, float]:
        loss = math.fsum(nats) / sum(tokens)
        return {
            "loss": loss,
            "perplexity": math.exp(loss),
            "bpb": math.fsum(nats) / (math.log(2) * sum(num_bytes)),
        }


def language_model_metrics(documents: dict[str, list[float]]) -> dict[str, float]:
    """`loss`, `perplexity`, `bpb` of documents given as columns nats, tokens, num_bytes."""
    result = LanguageModelLoss(keep_in_memory=True).compute(**documents)
    return {key: float(value) for key, value in result.items()}
