"""A learning-rate range test: raise the rate from step to step until the loss blows up, and see where it fell best.

Source: Smith, arXiv 1506.01186, with the exponential sweep and smoothed loss that fastai made common.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from model.config.training import TrainConfig
from model.training.batches import Batch
from model.training.state import NonFiniteLoss, TrainState
from model.training.trainer import train_step

SMOOTHING = 0.9
"""Weight of the past in the smoothed loss."""
RISE = 1.1
"""The loss has turned where it is a tenth above its minimum."""
DIVERGED = 1.5
"""A sweep ends where the smoothed loss is half above its minimum."""
SAFETY_FACTOR = 2.0
"""The suggestion is so many times below the steepest descent: the smoothed loss lags, and a whole training stands less
than a few steps."""


def smoothed_loss(losses: np.ndarray) -> np.ndarray:
    """Exponential mean up to each step, from the first loss on, (steps,) to (steps,)."""
    means = losses[:1].tolist()
    for loss in losses[1:].tolist():
        means.append(means[-1] + (1 - SMOOTHING) * (loss - means[-1]))
    return np.array(means)


@dataclass(frozen=True)
class LrSweep:
    """What a sweep saw: one learning rate and one loss a step, shape (steps,) each."""

    lrs: np.ndarray
    """Rising, peak learning rate of each step."""
    losses: np.ndarray
    """Nats per supervised token, before the update with that rate; infinite where loss or gradient were not finite."""
    diverged: bool = False
    """Whether the sweep ended because of its loss."""

    @property
    def smoothed(self) -> np.ndarray:
        """`smoothed_loss` of the losses."""
        return smoothed_loss(self.losses)

    @property
    def limit(self) -> float:
        """Largest rate before the smoothed loss rises a tenth over its minimum so far."""
        smoothed = self.smoothed
        risen = np.flatnonzero(smoothed > RISE * np.minimum.accumulate(smoothed))
        return float(self.lrs[risen[0] - 1 if len(risen) else -1])

    @property
    def steepest(self) -> float:
        """Rate below the limit at which the smoothed loss falls fastest over the logarithm of the rate.

        Raises ValueError if the loss never falls.
        """
        smoothed = self.smoothed[self.lrs <= self.limit]
        slopes = np.gradient(smoothed) if len(smoothed) > 1 else np.zeros(1)  # steps are even on the log scale
        if slopes.min() >= 0:
            raise ValueError(
                f"the loss never falls between learning rates {self.lrs[0]:.3g} and {self.lrs[-1]:.3g}; "
                "sweep from a smaller lr_min, over more steps, or with more rows in a batch"
            )
        return float(self.lrs[slopes.argmin()])

    @property
    def suggestion(self) -> float:
        """A peak learning rate to start from: the steepest descent over SAFETY_FACTOR. Raises as `steepest` does."""
        return self.steepest / SAFETY_FACTOR


def find_learning_rate(
    make_state: Callable[[], TrainState],
    batches: Iterable[Batch],
    config: TrainConfig,
    lr_min: float = 1e-6,
    lr_max: float = 1.0,
    num_steps: int = 100,
) -> LrSweep:
    """Train a copy of `make_state()` for `num_steps` steps, at rates from `lr_min` to `lr_max`, evenly on a log scale.

    The state that `make_state` gives is left as it is. `batches` yields one batch a step, `config` is that of the
    training to come but for its schedule. Ends early once the loss diverges. Raises ValueError for a bad range or
    too few batches, NonFiniteLoss if there is no loss to start from.
    """
    if not 0 < lr_min < lr_max:
        raise ValueError(f"lr_min ({lr_min}) must be above 0 and below lr_max ({lr_max})")
    if num_steps < 2:
        raise ValueError(f"num_steps ({num_steps}) must be at least 2")
    state = copy.deepcopy(make_state())
    state.step = 0
    state.model.train()
    lrs = np.geomspace(lr_min, lr_max, num_steps)
    losses: list[float] = []
    remaining, diverged = iter(batches), False
    for lr in lrs.tolist():
        batch = next(remaining, None)
        if batch is None:
            raise ValueError(f"{len(losses)} batches for {num_steps} steps of a sweep; give more, or lower num_steps")
        try:
            losses.append(train_step(state, batch, constant_rate(config, lr), num_steps).loss)
        except NonFiniteLoss:
            if not losses:
                raise
            losses.append(math.inf)
        smoothed = smoothed_loss(np.array(losses))
        if diverged := bool(smoothed[-1] > DIVERGED * smoothed.min()):
            break
    return LrSweep(lrs[: len(losses)], np.array(losses), diverged)


def constant_rate(config: TrainConfig, lr: float) -> TrainConfig:
    """`config` with one learning rate at every step."""
    return replace(config, optim=replace(config.optim, peak_lr=lr, warmup_share=0.0, stable_share=1.0))
