"""The order in which a training stage reads packed rows: a pure function of (rows, seed, step), torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=1)
def permutation(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """Order of one epoch, (num_rows,); the last one is kept, as making it costs far more than a batch."""
    order = np.random.default_rng([seed, epoch]).permutation(num_rows)
    if num_rows <= 1 << 32:
        order = order.astype(np.uint32)
    order.setflags(write=False)
    return order


def rows_of_step(num_rows: int, batch_rows: int, seed: int, step: int) -> np.ndarray:
    """Row numbers of the optimizer step `step`, from 0: `batch_rows` out of `num_rows`, (batch_rows,) int64.

    Each epoch is a permutation of its own, drawn from `seed`, and has every row once.
    """
    position = np.arange(step * batch_rows, (step + 1) * batch_rows)
    epoch, offset = position // num_rows, position % num_rows
    chosen = np.empty(batch_rows, dtype=np.int64)
    for number in np.unique(epoch):
        chosen[epoch == number] = permutation(num_rows, seed, int(number))[offset[epoch == number]]
    return chosen


@dataclass(frozen=True)
class Reading:
    """All that a training stage read: `num_steps` steps of `batch_rows` packed rows, out of `num_rows`."""

    num_rows: int
    batch_rows: int
    seed: int
    num_steps: int

    @property
    def epochs(self) -> float:
        return self.num_steps * self.batch_rows / self.num_rows if self.num_rows else 0.0

    @property
    def whole_epochs(self) -> int:
        return self.num_steps * self.batch_rows // self.num_rows if self.num_rows else 0

    @property
    def rest(self) -> int:
        """Rows read in the epoch that was not finished."""
        return self.num_steps * self.batch_rows % self.num_rows if self.num_rows else 0

    def times_read(self) -> np.ndarray:
        """How often each row was read, (num_rows,) uint32."""
        times = np.full(self.num_rows, self.whole_epochs, dtype=np.uint32)
        if self.rest:
            times[permutation(self.num_rows, self.seed, self.whole_epochs)[: self.rest]] += 1
        return times

    def last_steps(self) -> np.ndarray:
        """The step of the unfinished epoch that read each row, (num_rows,) uint32; steps count from 1, 0 is none."""
        steps = np.zeros(self.num_rows, dtype=np.uint32)
        if self.rest:
            read = permutation(self.num_rows, self.seed, self.whole_epochs)[: self.rest]
            steps[read] = (self.whole_epochs * self.num_rows + np.arange(self.rest)) // self.batch_rows + 1
        return steps
