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
    """Row numbers of one optimizer step; each epoch is a permutation of its own, every row once an epoch."""
    position = np.arange(step * batch_rows, (step + 1) * batch_rows)
    epoch, offset = position // num_rows, position % num_rows
    chosen = np.empty(batch_rows, dtype=np.int64)
    for number in np.unique(epoch):
        chosen[epoch == number] = permutation(num_rows, seed, int(number))[offset[epoch == number]]
    return chosen


@lru_cache(maxsize=1)
def swaps(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """Which position, not after it, each position was swapped with to make the epoch's order, (num_rows,) uint32.

    The order is a Fisher-Yates shuffle from the last position down. Its partners are drawn by masked rejection, as
    `RandomState` draws integers, so the same bits give them: in half the time of the shuffle, which waits for memory.
    """
    bits = np.random.RandomState(np.random.default_rng([seed, epoch]).bit_generator)
    partners = np.zeros(num_rows, dtype=np.uint32)
    partners[:0:-1] = bits.randint(0, np.arange(num_rows, 1, -1, dtype=np.uint32), dtype=np.uint32)
    return partners


def place_in_epoch(partners: np.ndarray, row: int) -> int:
    """Where a row stands in the order of an epoch, found by following it through the swaps."""
    place, above = row, len(partners)
    while True:
        later = np.flatnonzero(partners[place + 1 : above] == place)
        if len(later):  # of these swaps the one from the highest position came first, and no later one reaches it there
            return place + 1 + int(later[-1])
        if partners[place] == place:
            return place
        place, above = int(partners[place]), place


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
        """`last_step` of every row, (num_rows,) uint32, 0 for None."""
        steps = np.zeros(self.num_rows, dtype=np.uint32)
        if self.rest:
            read = permutation(self.num_rows, self.seed, self.whole_epochs)[: self.rest]
            steps[read] = (self.whole_epochs * self.num_rows + np.arange(self.rest)) // self.batch_rows + 1
        return steps

    def last_step(self, row: int) -> int | None:
        """The step of the unfinished epoch that read a row, as trackers number steps (from 1), if one did."""
        if not self.rest:
            return None
        place = place_in_epoch(swaps(self.num_rows, self.seed, self.whole_epochs), row)
        position = self.whole_epochs * self.num_rows + place
        return position // self.batch_rows + 1 if place < self.rest else None
