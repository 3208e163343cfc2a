"""Rows near to a row, looked up in the indexes of all volumes as a later night would look them up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from data.duplicates.ledger import Ledger
from data.duplicates.near import NearIndex
from data.rows.parts import PartRows

MAX_STEPS, ROWS_PER_STEP = 16, 256
"""How far, and how broadly, the search for rows that are near to near ones goes."""


def part_of(ledger: Ledger, row: int) -> PartRows:
    """The part that a row, given by number, stands in."""
    return ledger.parts[int(np.searchsorted(ledger.bases, row, side="right")) - 1]


def rows_near(ledger: Ledger, row: int, threshold: float | None) -> Iterator[int]:
    """Rows near to a row, then those near to these, and so on, the nearest first and bounded."""
    if threshold is None:
        return
    known, last = {row}, [row]
    for _ in range(MAX_STEPS):
        last = sorted(neighbours(ledger, last, threshold) - known)[:ROWS_PER_STEP]
        yield from last
        if not last:
            return
        known.update(last)


def neighbours(ledger: Ledger, rows: Sequence[int], threshold: float) -> set[int]:
    """Distinct rows that share a band with one of some rows and are near to it; these rows themselves included."""
    found: set[int] = set()
    sketches = np.concatenate([(p := part_of(ledger, row)).part.sketches[row - p.base][None] for row in rows])
    for volume in ledger.volumes:
        for _, near in NearIndex.open(volume.prefix, len(volume.generations)).matches(sketches, threshold):
            found.update(near.tolist())
    return found
