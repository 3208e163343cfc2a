"""The order in which a training stage reads packed rows: a pure function of (rows, seed, step), torch-free.

A stage that begins from scratch reads epoch after epoch of all rows. One that goes on from a trunk reads the rows that
the trunk has not read, mixed evenly with a share of those it has (arXiv 2403.08763); fine-tuning may mix its
conversations with rows of the pretraining text. Each of two such pools is read epoch after epoch. A position is a row's
place in the whole stage: step * batch_rows + its place in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

FRESH, REPLAYED = 0, 1
"""The pools, as their orders are seeded."""


@lru_cache(maxsize=2)
def permutation(num_rows: int, seed: int | tuple[int, ...], epoch: int) -> np.ndarray:
    """Order of one epoch, (num_rows,); the last one of each pool is kept, as making it costs far more than a batch."""
    entropy = seed if isinstance(seed, tuple) else (seed,)
    order = np.random.default_rng([*entropy, epoch]).permutation(num_rows)
    if num_rows <= 1 << 32:
        order = order.astype(np.uint32)
    order.setflags(write=False)
    return order


def in_epochs(num_rows: int, seed: int | tuple[int, ...], index: np.ndarray) -> np.ndarray:
    """Rows that stand at places `index` of an endless reading, each epoch of which is a permutation of its own and has
    every row once; int64, in the shape of `index`."""
    epoch, offset = index // num_rows, index % num_rows
    chosen = np.empty(len(index), dtype=np.int64)
    for number in np.unique(epoch):
        chosen[epoch == number] = permutation(num_rows, seed, int(number))[offset[epoch == number]]
    return chosen


def replayed_until(share: float, position: np.ndarray | int) -> np.ndarray:
    """How many of the positions before `position` are replayed rows, `share` of all: as evenly spread as can be."""
    return np.floor(np.asarray(position) * share).astype(np.int64)


class Replay(Protocol):
    """Two pools of rows, and how a stage mixes them."""

    @property
    def share(self) -> float:
        """Of the positions, how many are replayed rows; 0 if there are none, 1 if there are no others."""

    @property
    def salt(self) -> int:
        """Of the pools' orders, beside the seed."""

    @property
    def fresh(self) -> np.ndarray:
        """Numbers of the rows that are not replayed, ascending."""

    @property
    def replayed(self) -> np.ndarray:
        """Numbers of those that are, ascending."""


@dataclass(frozen=True, eq=False)
class TrunkReplay:
    """For a stage that goes on from a trunk: rows that are new to it, and rows that it has read."""

    before: np.ndarray
    """How often the trunk has read each row, (num_rows,) uint32."""
    share: float
    salt: int
    """Positions that the trunk has read, so that no two nights share an order."""

    @cached_property
    def fresh(self) -> np.ndarray:
        return np.flatnonzero(self.before == 0)

    @cached_property
    def replayed(self) -> np.ndarray:
        return np.flatnonzero(self.before)


@dataclass(frozen=True)
class TextReplay:
    """For fine-tuning: its own rows, and behind them rows of the text that its weights were pretrained on."""

    own_rows: int
    text_rows: int
    share: float
    salt: ClassVar[int] = 0

    @cached_property
    def fresh(self) -> np.ndarray:
        return np.arange(self.own_rows)

    @cached_property
    def replayed(self) -> np.ndarray:
        return np.arange(self.own_rows, self.own_rows + self.text_rows)

    def readings(self, batch_rows: int, seed: int, num_steps: int) -> tuple[Reading, Reading]:
        """What was read of its own rows, and of the text, each numbered from 0."""
        own, text = Part(self.share, replayed=False), Part(self.share, replayed=True)
        return (
            Reading(self.own_rows, batch_rows, seed, num_steps, part=own),
            Reading(self.text_rows, batch_rows, seed, num_steps, part=text),
        )


def mixed(wanted_share: float, max_epochs: float, before: np.ndarray, num_positions: int) -> float:
    """The share of rows read before, among `num_positions`: the one that is wanted, or more where the new rows would
    be read more than `max_epochs` times; none or all where only one of the pools has rows.

    before: how often each row was read, (num_rows,).
    """
    fresh = int((before == 0).sum())
    if fresh in (0, len(before)):
        return float(fresh == 0)
    return max(wanted_share, 1 - max_epochs * fresh / max(1, num_positions))


def rows_of_step(num_rows: int, batch_rows: int, seed: int, step: int, replay: Replay | None = None) -> np.ndarray:
    """Row numbers of the optimizer step `step`, from 0: `batch_rows` out of `num_rows`, (batch_rows,) int64.

    Each epoch, of all rows or with `replay` of each of its pools, is drawn from `seed`.
    """
    position = np.arange(step * batch_rows, (step + 1) * batch_rows)
    if replay is None:
        return in_epochs(num_rows, seed, position)
    index = replayed_until(replay.share, position)
    again = replayed_until(replay.share, position + 1) > index
    chosen = np.empty(batch_rows, dtype=np.int64)
    if again.any():
        rows = replay.replayed
        chosen[again] = rows[in_epochs(len(rows), (seed, replay.salt, REPLAYED), index[again])]
    if not again.all():
        rows = replay.fresh
        chosen[~again] = rows[in_epochs(len(rows), (seed, replay.salt, FRESH), (position - index)[~again])]
    return chosen


class Pool(NamedTuple):
    """Rows that a stage read epoch after epoch."""

    rows: np.ndarray | None
    """Their numbers; None for all."""
    num_rows: int
    seed: int | tuple[int, ...]
    places: int
    """How many positions of the stage were theirs."""

    @property
    def whole_epochs(self) -> int:
        return self.places // self.num_rows if self.num_rows else 0

    @property
    def rest(self) -> int:
        """Rows read in the epoch that was not finished."""
        return self.places % self.num_rows if self.num_rows else 0

    def read_of_rest(self) -> np.ndarray:
        """Numbers of those rows, in order."""
        read = permutation(self.num_rows, self.seed, self.whole_epochs)[: self.rest]
        return read if self.rows is None else self.rows[read]


class Part(NamedTuple):
    """Which positions of a stage that replays text are a reading's."""

    share: float
    """Of the positions, how many are text."""
    replayed: bool
    """Whether they are the text's, or the stage's own."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What a training stage read of rows of one kind: `num_steps` steps of `batch_rows` packed rows, out of `num_rows`.

    Of several fields that say how the order comes about at most one is given: `replay` of a trunk, or `part` where the
    steps are shared with rows of another kind.
    """

    num_rows: int
    batch_rows: int
    seed: int
    num_steps: int
    replay: TrunkReplay | None = None
    part: Part | None = None

    @property
    def num_positions(self) -> int:
        return self.num_steps * self.batch_rows

    @property
    def epochs(self) -> float:
        return sum(pool.places for pool in self.pools) / self.num_rows if self.num_rows else 0.0

    @cached_property
    def pools(self) -> list[Pool]:
        """All rows, or those that were new to the trunk and those that were not."""
        if self.part:
            which = REPLAYED if self.part.replayed else FRESH
            return [Pool(None, self.num_rows, (self.seed, TextReplay.salt, which), len(self._positions(0)))]
        if self.replay is None:
            return [Pool(None, self.num_rows, self.seed, self.num_positions)]
        again, salt = int(replayed_until(self.replay.share, self.num_positions)), self.replay.salt
        fresh, replayed = self.replay.fresh, self.replay.replayed
        return [
            Pool(fresh, len(fresh), (self.seed, salt, FRESH), self.num_positions - again),
            Pool(replayed, len(replayed), (self.seed, salt, REPLAYED), again),
        ]

    @property
    def rest(self) -> int:
        """Rows read in epochs that were not finished."""
        return sum(pool.rest for pool in self.pools)

    def pool_of(self, row: int) -> Pool:
        """The pool that a row is in."""
        return self.pools[0 if self.replay is None or self.replay.before[row] == 0 else 1]

    def times_read(self) -> np.ndarray:
        """How often each row was read, (num_rows,) uint32; by the trunk before this stage, too."""
        times = np.zeros(self.num_rows, dtype=np.uint32)
        for pool in self.pools:
            times[... if pool.rows is None else pool.rows] += np.uint32(pool.whole_epochs)
            if pool.rest:
                times[pool.read_of_rest()] += 1
        return times if self.replay is None else times + self.replay.before

    def last_steps(self) -> np.ndarray:
        """The step of an unfinished epoch that read each row, (num_rows,) uint32; steps count from 1, 0 is none."""
        steps = np.zeros(self.num_rows, dtype=np.uint32)
        for number, pool in enumerate(self.pools):
            if pool.rest:
                places = pool.whole_epochs * pool.num_rows + np.arange(pool.rest)
                steps[pool.read_of_rest()] = self._positions(number)[places] // self.batch_rows + 1
        return steps

    def _positions(self, pool: int) -> np.ndarray:
        """Positions of the stage that belong to a pool, in order."""
        positions, mixes = np.arange(self.num_positions), self.part or self.replay
        if mixes is None:
            return positions
        before = replayed_until(mixes.share, np.arange(self.num_positions + 1))
        return positions[(np.diff(before) > 0) == (self.part.replayed if self.part else bool(pool))]
