"""Best-fit decreasing by looking at every row for every segment, and a checker that knows nothing of it."""

from __future__ import annotations

from collections.abc import Sequence

from model.packing import Placement


def scanned_best_fit(lengths: Sequence[int], capacity: int) -> list[Placement]:
    free: list[int] = []
    placements = []
    for segment in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[segment]
        fitting = [row for row in range(len(free)) if free[row] >= length]
        if fitting:
            row = min(fitting, key=lambda r: (free[r], r))
        else:
            row = len(free)
            free.append(capacity)
        placements.append(Placement(segment, row, capacity - free[row], length))
        free[row] -= length
    return placements


def occupied_slots(placements: Sequence[Placement]) -> dict[tuple[int, int], int]:
    """Which segment lies in each (row, slot); fails if two claim the same one."""
    owner: dict[tuple[int, int], int] = {}
    for placement in placements:
        for slot in range(placement.start, placement.start + placement.length):
            key = (placement.row, slot)
            assert key not in owner, f"segments {owner[key]} and {placement.segment} overlap at {key}"
            owner[key] = placement.segment
    return owner
