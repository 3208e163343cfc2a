"""The gate, slowly: weights by search, a bootstrap one resample and one cluster at a time, an account day by day."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Document:
    """A document that both models scored."""

    cluster: str
    source: str
    bits: float
    """Challenger minus champion."""
    num_bytes: int


def trimmed(sizes: Mapping[str, int], max_share: float) -> dict[str, float]:
    """The weight of each cluster so that none counts for more than `max_share` of all, by halving an interval."""
    share = max(max_share, 3 / len(sizes))
    low, high = 0.0, float(max(sizes.values()))
    if high <= share * sum(sizes.values()):
        return dict.fromkeys(sizes, 1.0)
    for _ in range(200):
        cap = (low + high) / 2
        low, high = (cap, high) if cap <= share * sum(min(size, cap) for size in sizes.values()) else (low, cap)
    return {cluster: min(1.0, low / size) for cluster, size in sizes.items()}


def strata_of(documents: Sequence[Document], small: int) -> list[list[str]]:
    """Names of the clusters of each stratum, strata and clusters in order of their names, small ones together."""
    bytes_of: dict[str, Counter[str]] = {}
    for document in documents:
        bytes_of.setdefault(document.cluster, Counter())[document.source] += document.num_bytes
    source_of = {cluster: min(sources, key=lambda s: (-sources[s], s)) for cluster, sources in bytes_of.items()}
    sizes = Counter(source_of.values())
    strata: dict[str, list[str]] = {}
    for cluster, source in sorted(source_of.items()):
        strata.setdefault(source if sizes[source] >= small else "", []).append(cluster)
    ordered = sorted((strata[name] for name in sorted(strata)), key=len, reverse=True)
    if len(ordered) > 1 and len(ordered[-1]) == 1:
        ordered = [ordered[0] + ordered[-1], *ordered[1:-1]]
    return ordered


def resampled(
    documents: Sequence[Document], max_share: float, small: int, num_resamples: int, seed: int
) -> list[float]:
    """The difference in bits per byte of each resample."""
    sizes: Counter[str] = Counter()
    for document in documents:
        sizes[document.cluster] += document.num_bytes
    weights = trimmed(sizes, max_share)
    sums: dict[str, tuple[float, float]] = dict.fromkeys(sizes, (0.0, 0.0))
    for document in documents:
        bits, num_bytes = sums[document.cluster]
        weight = weights[document.cluster]
        sums[document.cluster] = bits + weight * document.bits, num_bytes + weight * document.num_bytes
    generator = np.random.default_rng(seed)
    totals = [[0.0, 0.0] for _ in range(num_resamples)]
    for clusters in strata_of(documents, small):
        count = max(1, len(clusters) - 1)
        for total in totals:
            for drawn in generator.integers(0, len(clusters), count):
                bits, num_bytes = sums[clusters[int(drawn)]]
                total[0] += bits * len(clusters) / count
                total[1] += num_bytes * len(clusters) / count
    return [bits / num_bytes for bits, num_bytes in totals]


def standard_error(bits: np.ndarray, num_bytes: np.ndarray) -> float:
    """Of sum(bits) / sum(num_bytes) over independent documents, to first order (delta method)."""
    residuals = bits - bits.sum() / num_bytes.sum() * num_bytes
    return math.sqrt(float(np.square(residuals).sum())) / float(num_bytes.sum())


def spent(days: Sequence[int], budget: Fraction) -> list[Fraction]:
    """What comparisons on whole days spend of a yearly budget, in exact fractions, the account kept day by day."""
    held, most = budget / 12, budget / 12
    paid: list[Fraction] = []
    for day in range(max(days, default=0) + 1):
        if day > min(days):
            held = min(most, held + budget * Fraction(11, 12) / 365)
        for _ in range(list(days).count(day)):
            paid.append(held / 30)
            held -= held / 30
    return paid
