"""Rows near to a row, looked up in the indexes of all generations as a later night would look them up."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from data.deduplicate import Ledger
from data.names import PartRows
from data.near import NearIndex

NEAR_STEPS = 64
"""Rows whose neighbours are asked for theirs before the search is given up."""


def part_of(ledger: Ledger, row: int) -> PartRows:
    """The part that a row, given by number, stands in."""
    return ledger.parts[int(np.searchsorted(ledger.bases, row, side="right")) - 1]


def rows_near(ledger: Ledger, row: int, threshold: float | None) -> Iterator[int]:
    """Rows near to a row, then those near to these, and so on, breadth first and bounded."""
    if threshold is None:
        return
    known, waiting = {row}, deque([row])
    for _ in range(NEAR_STEPS):
        if not waiting:
            return
        for near in neighbours(ledger, waiting.popleft(), threshold):
            if near not in known:
                known.add(near)
                waiting.append(near)
                yield near


def neighbours(ledger: Ledger, row: int, threshold: float) -> list[int]:
    """Distinct rows that share a band with a row and are near to it."""
    part, found = part_of(ledger, row), {row}
    sketch = part.part.sketches[row - part.base : row - part.base + 1]
    for generation in ledger.generations:
        for _, rows in NearIndex.open(generation.prefix).matches(sketch, threshold):
            found.update(rows.tolist())
    return sorted(found - {row})
