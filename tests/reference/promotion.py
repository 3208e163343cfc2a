"""The upper bound of a ratio of sums: by the normal approximation, and by a bootstrap of one resample at a time."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np


def standard_error(bits: np.ndarray, num_bytes: np.ndarray) -> float:
    """Of sum(bits) / sum(num_bytes) over independent documents, to first order (delta method)."""
    residuals = bits - bits.sum() / num_bytes.sum() * num_bytes
    return math.sqrt(float(np.square(residuals).sum())) / float(num_bytes.sum())


def normal_upper(bits: np.ndarray, num_bytes: np.ndarray, confidence: float) -> float:
    ratio = float(bits.sum() / num_bytes.sum())
    return ratio + NormalDist().inv_cdf(confidence) * standard_error(bits, num_bytes)


def bootstrap_upper(bits: np.ndarray, num_bytes: np.ndarray, confidence: float, num_resamples: int, seed: int) -> float:
    """The `confidence` quantile over resamples of as many documents as there are, drawn with replacement."""
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(num_resamples):
        drawn = generator.integers(0, len(bits), len(bits))
        ratios.append(sum(bits[i] for i in drawn) / sum(num_bytes[i] for i in drawn))
    return float(np.quantile(ratios, confidence))
