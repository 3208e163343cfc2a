"""Files of many nights put together, so that how many are opened does not follow the number of nights.

Neighbours alone are joined, whole and in order, so whatever is numbered through them keeps its number. A file is joined
with all after it once they are as large together, as a binary counter carries: each is then larger than all after it,
N nights of one size leave at most 1 + log2(N) files, and each byte is written again at most 1 + log2(N) times. What was
joined to nearly `full_bytes` is left alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path


def number_folded(sizes: Sequence[int], full_bytes: int) -> int:
    """How many of the last files become one, by the bytes of each; 0 if they stay as they are.

    full_bytes: what a joined file holds at most.
    """
    total, number = 0, 0
    for place, size in enumerate(reversed(sizes)):
        if place and total + size > full_bytes:
            break
        if place and size <= total:
            number = place + 1
        total += size
    return number


def join_bytes(paths: Sequence[Path], into: Path) -> None:
    """Write the bytes of some files one after another into a new one."""
    with into.open("xb") as joined:
        for path in paths:
            with path.open("rb") as stream:
                shutil.copyfileobj(stream, joined, 1 << 20)
