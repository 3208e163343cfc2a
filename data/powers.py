"""Powers for rolling hashes: a window's hash is a difference of prefix sums, times a power."""

from __future__ import annotations

from functools import cache

import numpy as np


@cache
def powers(factor: int, length: int, word: type[np.unsignedinteger]) -> tuple[np.ndarray, np.ndarray]:
    """Powers 0 to length - 1 of an odd factor and of its inverse, modulo the word's size."""
    up = np.full(length, factor, dtype=word)
    down = np.full(length, pow(factor, -1, 1 << 8 * up.itemsize), dtype=word)
    up[0] = down[0] = 1
    return np.cumprod(up, dtype=word), np.cumprod(down, dtype=word)
