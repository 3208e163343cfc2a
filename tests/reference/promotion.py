"""The upper bound of a ratio of sums by the normal approximation."""

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
