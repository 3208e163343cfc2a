"""Batches of packed rows as a pure function of (data, seed, step): nothing to save, nothing to lose on resume.

Shapes: B = rows, T = slots of a row, N = B * T.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.parallel.ranks import ALONE, Ranks
from model.tokens.order import Replay, rows_of_step
from model.tokens.packing import IGNORED, PackedTokens, ShardedTokens


@dataclass(frozen=True)
class Batch:
    """Tensors of some rows, each (B, T), int64."""

    ids_BT: Tensor
    labels_BT: Tensor
    segment_BT: Tensor

    @property
    def real_N(self) -> Tensor:
        """True where a slot is not padding, flattened to (N,)."""
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


def batch_of_rows(packed: PackedTokens | ShardedTokens, row_numbers: np.ndarray) -> Batch:
    """The rows of these numbers as tensors, in their order."""
    rows = packed.rows(row_numbers)
    arrays = (rows.input_ids, rows.labels, rows.segment_ids)
    return Batch(*(torch.from_numpy(array.astype(np.int64)) for array in arrays))


def batch_of_step(
    packed: PackedTokens | ShardedTokens, batch_rows: int, seed: int, step: int, ranks: Ranks = ALONE,
    micro_batch_rows: int = 1, replay: Replay | None = None,
) -> Batch:  # fmt: skip
    """The batch of optimizer step `step`, counted from 0: `batch_rows` of `packed` in the order that `seed` gives them,
    with `replay` those that are new to a trunk mixed with others.

    Of several ranks the share of this one, micro-batch by micro-batch, see `Ranks.rows`. Raises ValueError if there are
    no rows, or if they cannot be dealt evenly.
    """
    if packed.num_rows == 0:
        raise ValueError("the training side has no packed rows; give the recipe more text or shorter rows")
    row_numbers = rows_of_step(packed.num_rows, batch_rows, seed, step, replay)
    return batch_of_rows(packed, ranks.rows(row_numbers, micro_batch_rows))
