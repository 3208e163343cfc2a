"""Powers for rolling hashes: a window's hash is a difference of prefix sums, times a power."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np


def mixed(values: np.ndarray, seed: str) -> np.ndarray:
    """A keyed hash of 64-bit values, (N,) uint64: the finaliser of SplitMix64 (Steele, Lea and Flood 2014), keyed."""
    key = np.frombuffer(hashlib.blake2b(seed.encode(), digest_size=16).digest(), dtype="<u8")
    x = values.astype(np.uint64) ^ key[0]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return (x ^ (x >> np.uint64(31))) ^ key[1]


@cache
def powers(factor: int, length: int, word: type[np.unsignedinteger]) -> tuple[np.ndarray, np.ndarray]:
    """Powers 0 to length - 1 of an odd factor and of its inverse, modulo the word's size."""
    up = np.full(length, factor, dtype=word)
    down = np.full(length, pow(factor, -1, 1 << 8 * up.itemsize), dtype=word)
    up[0] = down[0] = 1
    return np.cumprod(up, dtype=word), np.cumprod(down, dtype=word)


def mix(x: np.ndarray) -> np.ndarray:
    """Finaliser of SplitMix64 on uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
