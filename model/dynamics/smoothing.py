"""Curves smoothed over steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EMA_WEIGHT = 0.95
"""Weight of the past in the averages that are reported and drawn."""


def smoothed(values: Sequence[float], weight: float = EMA_WEIGHT) -> np.ndarray:
    """Exponential moving average up to each step, (steps,); the weights of the past sum to 1 from the first step on.

    `weight`, from 0 and below 1, is that of the average so far against the next value. Source of the correction: Adam,
    arXiv 1412.6980, section 3.
    """
    average, out = 0.0, []
    for number, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        out.append(average / (1 - weight**number))
    return np.array(out)
