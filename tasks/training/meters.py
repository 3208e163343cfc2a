"""Running figures of a training stage: each step updates them in constant time.

Shapes: L = layers, E = experts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from model.dynamics.smoothing import EMA_WEIGHT
from model.training.trainer import StepMetrics

CLIPPED_STEPS = 100
"""Steps over which the share of clipped ones is taken."""
LOAD_WEIGHT = 0.98
"""Weight of the past in the experts' load."""


class Meter(Protocol):
    """A figure over the steps of a stage."""

    def update(self, step: StepMetrics) -> Mapping[str, float]:
        """Count a step that was just made; returns metrics by name."""
        ...

    def replay(self, point: Mapping[str, float]) -> None:
        """Count a step that an earlier process made, from its point of the curve."""
        ...


class LossAverage:
    """Exponential moving average of the loss, with bias correction: `smoothed` of all losses so far, its last value.

    Loss x_i of step i weighs EMA_WEIGHT^(n - i) after n steps, and the weights are divided by their sum. Cut off after
    k steps, the average would be that of the last k alone, and what is cut off weighs EMA_WEIGHT^k of the whole.
    """

    def __init__(self) -> None:
        self.average, self.steps = 0.0, 0

    def update(self, step: StepMetrics) -> Mapping[str, float]:
        return {"train/loss_ema": self._add(step.loss)}

    def replay(self, point: Mapping[str, float]) -> None:
        self._add(point["train/loss"])

    def _add(self, loss: float) -> float:
        self.average = EMA_WEIGHT * self.average + (1 - EMA_WEIGHT) * loss
        self.steps += 1
        return self.average / (1 - EMA_WEIGHT**self.steps)


class ClippedShare:
    """Share of the last CLIPPED_STEPS steps whose gradient was clipped, of all steps while there are fewer."""

    def __init__(self) -> None:
        self.recent: deque[bool] = deque(maxlen=CLIPPED_STEPS)
        self.clipped = 0

    def update(self, step: StepMetrics) -> Mapping[str, float]:
        return {"train/clipped_share": self._add(step.clipped)}

    def replay(self, point: Mapping[str, float]) -> None:
        self._add(bool(point["train/clipped"]))

    def _add(self, clipped: bool) -> float:
        leaving = self.recent[0] if len(self.recent) == CLIPPED_STEPS else False
        self.recent.append(clipped)
        self.clipped += clipped - leaving
        return self.clipped / len(self.recent)


class ExpertLoad:
    """Tokens routed to each expert, a step's counts weighing LOAD_WEIGHT^age; begins anew when the experts change.

    It is for the stage's picture and gives no metric. The curve holds no counts, so after a resume it covers the steps
    since then: half of its weight lies on the last 34 steps.
    """

    def __init__(self) -> None:
        self.counts_LE = np.zeros((0, 0))
        """Decayed counts, float64; empty before the first step and for a dense model."""

    def update(self, step: StepMetrics) -> Mapping[str, float]:
        same_experts = self.counts_LE.shape == step.counts_LE.shape
        past_LE = LOAD_WEIGHT * self.counts_LE if same_experts else np.zeros(step.counts_LE.shape)
        self.counts_LE = past_LE + step.counts_LE
        return {}

    def replay(self, point: Mapping[str, float]) -> None:
        pass


class StageMeters:
    """All meters of a training stage, as they stand after the steps of a curve."""

    def __init__(self, points: Iterable[Mapping[str, float]]) -> None:
        """points: of the curve in order of steps; the one at step 0 is a validation and no step."""
        self.load = ExpertLoad()
        self.meters: tuple[Meter, ...] = (LossAverage(), ClippedShare(), self.load)
        for point in points:
            if point["step"]:
                for meter in self.meters:
                    meter.replay(point)

    def update(self, step: StepMetrics) -> dict[str, float]:
        """Metrics of all meters by name."""
        return {name: value for meter in self.meters for name, value in meter.update(step).items()}
