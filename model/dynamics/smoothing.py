"""Curves smoothed over steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def smoothed(values: Sequence[float], weight: float = 0.95) -> np.ndarray:
    """Exponential moving average with bias correction."""
    average, out = 0.0, []
    for number, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        out.append(average / (1 - weight**number))
    return np.array(out)
