"""The order in which a stage reads packed rows, walked position by position from the first one on."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor

import numpy as np


def endless(rows: list[int], entropy: list[int]) -> Iterator[int]:
    """Epoch after epoch of some rows, each in an order of its own."""
    epoch = 0
    while rows:
        for index in np.random.default_rng([*entropy, epoch]).permutation(len(rows)):
            yield rows[index]
        epoch += 1


def walked(num_rows: int, batch_rows: int, seed: int, steps: int) -> list[list[int]]:
    """Row numbers of each step of a stage that reads all rows alike."""
    rows = endless(list(range(num_rows)), [seed])
    return [[next(rows) for _ in range(batch_rows)] for _ in range(steps)]


def walked_with_replay(
    fresh: list[int], replayed: list[int], share: float, salt: int, batch_rows: int, seed: int, steps: int
) -> list[list[int]]:
    """The same of one that mixes a share of replayed rows with fresh ones, as evenly as can be."""
    new, old = endless(fresh, [seed, salt, 0]), endless(replayed, [seed, salt, 1])
    batches: list[list[int]] = []
    for position in range(steps * batch_rows):
        if position % batch_rows == 0:
            batches.append([])
        again = floor((position + 1) * share) > floor(position * share)
        batches[-1].append(next(old if again else new))
    return batches
