"""What is usual for a figure of each step, and how far a value lies from it, whatever outliers there were."""

from __future__ import annotations

from collections import deque

import numpy as np

CENTRE_STEPS, SCALE_STEPS = 16, 128
"""Steps whose median is the centre, few, as a loss falls; and those whose spread is the scale."""
FEWEST_STEPS = 32
"""Before so many a baseline says nothing."""
DEVIATION_OF_MAD = 1.4826
"""The standard deviation of normal noise over its median absolute deviation."""


class Baseline:
    """Trailing median and median absolute deviation (MAD) of a figure, in constant memory.

    A value is compared with the median of the CENTRE_STEPS values before it, in units of the deviation that the MAD of
    such differences over the last SCALE_STEPS stands for. Neither follows an outlier. Source: the modified z-score of
    Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993), over a window that moves.
    """

    def __init__(self, floor: float = 0.0) -> None:
        """`floor`: the smallest deviation, in the figure's unit, so that a figure without noise has no outliers."""
        self.floor = floor
        self.values: deque[float] = deque(maxlen=CENTRE_STEPS)
        self.differences: deque[float] = deque(maxlen=SCALE_STEPS)

    @property
    def centre(self) -> float:
        """Median of the last values; nan before there is one."""
        return float(np.median(self.values)) if self.values else float("nan")

    @property
    def deviation(self) -> float:
        """What a usual value differs by; infinite before FEWEST_STEPS values."""
        if len(self.differences) + 1 < FEWEST_STEPS:
            return float("inf")
        differences = np.array(self.differences)
        spread = float(np.median(np.abs(differences - np.median(differences))))
        return max(self.floor, DEVIATION_OF_MAD * spread)

    def deviations(self, value: float) -> float:
        """How many deviations `value` lies above the centre; 0 while the baseline says nothing, inf for no number."""
        if not np.isfinite(value):
            return float("inf")
        deviation = self.deviation
        return (value - self.centre) / deviation if np.isfinite(deviation) and deviation else 0.0

    def add(self, value: float) -> None:
        """Count a value as usual."""
        if self.values:
            self.differences.append(value - self.centre)
        self.values.append(value)
