"""Batches of packed rows as a pure function of (data, seed, step): nothing to save, nothing to lose on resume.

Shapes: N = packed rows, T = slots of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.config import IGNORED
from model.packing import PackedTokens


@dataclass(frozen=True)
class Batch:
    """Tensors of some rows, each (rows, T), int64."""

    ids_BT: Tensor
    labels_BT: Tensor
    segment_BT: Tensor

    @property
    def real_N(self) -> Tensor:
        """True where a slot is no padding, flattened to (rows * T,)."""
        return (self.segment_BT != 0).flatten()

    @property
    def num_supervised(self) -> int:
        return int((self.labels_BT != IGNORED).sum())

    def split(self, rows: int) -> list[Batch]:
        """Micro-batches of `rows` rows."""
        parts = zip(*(t.split(rows) for t in (self.ids_BT, self.labels_BT, self.segment_BT)), strict=True)
        return [Batch(*part) for part in parts]

    def to(self, device: torch.device) -> Batch:
        return Batch(self.ids_BT.to(device), self.labels_BT.to(device), self.segment_BT.to(device))


def take(tokens: PackedTokens, rows: np.ndarray) -> Batch:
    """The given rows as tensors."""
    arrays = (tokens.input_ids[rows], tokens.labels[rows], tokens.segment_ids[rows])
    return Batch(*(torch.from_numpy(array.astype(np.int64)) for array in arrays))


def rows_of_step(num_rows: int, batch_rows: int, seed: int, step: int) -> np.ndarray:
    """Row numbers of one optimizer step; each epoch is a permutation of its own, every row once an epoch."""
    position = np.arange(step * batch_rows, (step + 1) * batch_rows)
    epoch, offset = position // num_rows, position % num_rows
    chosen = np.empty(batch_rows, dtype=np.int64)
    for number in np.unique(epoch):
        permutation = np.random.default_rng([seed, int(number)]).permutation(num_rows)
        chosen[epoch == number] = permutation[offset[epoch == number]]
    return chosen


def batch_of_step(tokens: PackedTokens, batch_rows: int, seed: int, step: int) -> Batch:
    """The batch of optimizer step `step`, counted from 0."""
    if tokens.num_rows == 0:
        raise ValueError("the training side has no packed rows; give the recipe more text or shorter rows")
    return take(tokens, rows_of_step(tokens.num_rows, batch_rows, seed, step))
