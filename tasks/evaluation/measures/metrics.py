"""Metrics of a language model as `evaluate` modules that combine; they are defined here, so nothing is fetched.

Each takes columns of its own, one line for each of what it is about: a document, a bin, a reply, a question, a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import datasets
import evaluate

INTEGER, NUMBER, TRUTH = (datasets.Value(kind) for kind in ("int64", "float64", "bool"))
Columns = Mapping[str, Sequence[Any]]


class TableMetric(evaluate.Metric):
    """A metric of columns that the class names."""

    COLUMNS: ClassVar[dict[str, Any]]
    SOURCE: ClassVar = ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation=self.SOURCE,
            inputs_description=", ".join(self.COLUMNS),
            features=datasets.Features(self.COLUMNS),
        )


class LanguageModelLoss(TableMetric):
    """Loss, perplexity and bits per byte from per-document sums.

    Each document gives its nats, its targets and the bytes of its target text; ratios are formed over all of them
    once. Bits per byte compares across tokenizers, the other two do not.
    """

    COLUMNS: ClassVar = {"nats": NUMBER, "tokens": INTEGER, "num_bytes": INTEGER}

    def _compute(self, nats: Sequence[float], tokens: Sequence[int], num_bytes: Sequence[int]) -> dict[str, float]:
        loss = math.fsum(nats) / sum(tokens)
        return {
            "loss": loss,
            "perplexity": math.exp(loss),
            "bpb": math.fsum(nats) / (math.log(2) * sum(num_bytes)),
        }


class CalibrationError(TableMetric):
    """Expected calibration error of the likeliest next token, `ece`: 0 where a model is right as often as it is sure.

    A line a bin: its targets, and over them the mean probability of the likeliest token and how often it was right.
    It is about tokens, so it does not compare across tokenizers.
    """

    COLUMNS: ClassVar = {"bin_tokens": INTEGER, "bin_confidence": NUMBER, "bin_accuracy": NUMBER}
    SOURCE = "Naeini et al. 2015, AAAI; Guo et al. 2017, arXiv 1706.04599"

    def _compute(
        self, bin_tokens: Sequence[int], bin_confidence: Sequence[float], bin_accuracy: Sequence[float]
    ) -> dict[str, float]:
        gaps = (n * abs(c - a) for n, c, a in zip(bin_tokens, bin_confidence, bin_accuracy, strict=True))
        return {"ece": math.fsum(gaps) / sum(bin_tokens)}


class ReplyQuality(TableMetric):
    """Shares of replies that end by themselves and that are a turn as the template has it, and of their runs of four
    tokens those that stood in the same reply before.

    A line a reply. Without any such run nothing is said of repetition.
    """

    COLUMNS: ClassVar = {"ended": TRUTH, "valid": TRUTH, "ngrams": INTEGER, "repeated_ngrams": INTEGER}
    SOURCE = "seq-rep-n: Welleck et al. 2019, arXiv 1908.04319"

    def _compute(
        self, ended: Sequence[bool], valid: Sequence[bool], ngrams: Sequence[int], repeated_ngrams: Sequence[int]
    ) -> dict[str, float]:
        shares = {"self_ending_share": sum(ended) / len(ended), "format_valid_share": sum(valid) / len(valid)}
        return shares | ({"repetition_share": sum(repeated_ngrams) / sum(ngrams)} if sum(ngrams) else {})


class ChoiceAccuracy(TableMetric):
    """How often a beginning tells most about its true continuation, and how often it would by chance.

    A line a question: nats of each option after the beginning and by itself, the true one first. The option counts that
    the beginning makes likelier by most; a tie counts as chance would have it.
    """

    COLUMNS: ClassVar = {"option_nats": datasets.Sequence(NUMBER), "option_nats_alone": datasets.Sequence(NUMBER)}
    SOURCE = "Zellers et al. 2019, arXiv 1905.07830; Holtzman et al. 2021, arXiv 2104.08315"

    def _compute(
        self, option_nats: Sequence[Sequence[float]], option_nats_alone: Sequence[Sequence[float]]
    ) -> dict[str, float]:
        found = chance = 0.0
        for after, alone in zip(option_nats, option_nats_alone, strict=True):
            told = [before - left for before, left in zip(alone, after, strict=True)]
            most = max(told)
            found += (told[0] == most) / max(1, told.count(most))
            chance += 1 / len(told)
        return {"choice_accuracy": found / len(option_nats), "choice_chance": chance / len(option_nats)}


class ExpertHealth(TableMetric):
    """Dead experts of all layers, and the evenness of the load, 1 at best, in the layer where it is least.

    A line a layer.
    """

    COLUMNS: ClassVar = {"layer_dead": INTEGER, "layer_entropy": NUMBER}

    def _compute(self, layer_dead: Sequence[int], layer_entropy: Sequence[float]) -> dict[str, float]:
        return {"dead_experts": float(sum(layer_dead)), "load_entropy": min(layer_entropy)}


METRICS = (LanguageModelLoss, CalibrationError, ReplyQuality, ChoiceAccuracy, ExpertHealth)


def combined_metrics(columns: Columns) -> dict[str, float]:
    """All metrics whose columns are there and hold a line, computed as one combination of `evaluate` modules."""
    asked = [metric for metric in METRICS if all(len(columns.get(name, ())) for name in metric.COLUMNS)]
    together = evaluate.combine([metric(keep_in_memory=True) for metric in asked])
    together.add_batch(**columns)  # compute(**columns) would hand every column to every metric
    return {name: float(value) for name, value in together.compute().items()}


def language_model_metrics(documents: Columns) -> dict[str, float]:
    """`loss`, `perplexity`, `bpb` of documents given as columns nats, tokens, num_bytes."""
    result = LanguageModelLoss(keep_in_memory=True).compute(**documents)
    return {key: float(value) for key, value in result.items()}
