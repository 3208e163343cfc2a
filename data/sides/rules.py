"""What decides the side of a row and its place in the shuffled order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.hashing import mixed


@dataclass(frozen=True, kw_only=True)
class SideRules:
    """What decides sides and order."""

    val_share: float
    salt: str
    shuffle_seed: int
    val_bytes_per_slice: int
    weights: dict[str, float]
    """Of each source, how often its train rows are seen."""

    def is_val(self, clusters: np.ndarray) -> np.ndarray:
        """Whether each cluster is held out; clusters are (N,) of ID_DTYPE."""
        return mixed(clusters["hi"], self.salt) < np.uint64(int(self.val_share * 2**64))

    def held_out_above(self, clusters: np.ndarray) -> np.ndarray:
        """The `val_share` above which each cluster is held out, (N,) float."""
        return mixed(clusters["hi"], self.salt) / 2.0**64

    def order(self, ids: np.ndarray, copy: int = 0) -> np.ndarray:
        """Place of each row in the shuffled order, (N,) uint64."""
        return mixed(ids["lo"], f"shuffle-{self.shuffle_seed}-{copy}")

    def copies(self, source: str, ids: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the copy, which rows have it): a weight of 1.5 is every row once and half of them twice."""
        whole, rest = divmod(self.weights[source], 1.0)
        for copy in range(int(whole)):
            yield copy, np.ones(len(ids), dtype=bool)
        if rest:
            yield int(whole), mixed(ids["lo"], f"weight-{self.salt}") < np.uint64(int(rest * 2**64))
