"""How much of the validation side the train side repeats: runs of equal tokens.

A document is contaminated if at least a fifth of its n-grams stand in the train side, the line that Llama 2
(arXiv 2307.09288, A.6) draws between clean and not clean.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from data.hashing import powers

NGRAM_TOKENS = 20
"""About thirteen words of English."""
CONTAMINATED_FROM = 0.2
FILTER_BITS = 24
FACTOR = 0x9E3779B97F4A7C15
BLOCK_TOKENS = 1 << 18


def ngram_hashes(ids: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hash of every run of NGRAM_TOKENS tokens inside a document, uint64, and the position where it starts.

    A run's polynomial hash is a difference of prefix sums, so its cost does not depend on the length of the run.
    """
    length = len(ids) - NGRAM_TOKENS + 1
    if length <= 0:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    up, down = powers(FACTOR, 1 << len(ids).bit_length(), np.uint64)
    spread = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)
    spread ^= spread >> np.uint64(32)
    spread *= up[: len(ids)]
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(spread, dtype=np.uint64)])
    inside = np.ones(length, dtype=bool)
    for step in range(1, NGRAM_TOKENS):
        crossing = offsets[1:-1] - step
        inside[crossing[(crossing >= 0) & (crossing < length)]] = False
    where = np.flatnonzero(inside)
    hashes = (sums[NGRAM_TOKENS:] - sums[:length])[where] * down[where]
    return (hashes ^ (hashes >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9), where


@dataclass(frozen=True)
class Fingerprints:
    """N-grams of the validation documents."""

    hashes: np.ndarray
    """(H,) uint64, sorted, distinct."""
    owner: np.ndarray
    """(G,) number of the document of each n-gram."""
    place: np.ndarray
    """(G,) which of the hashes each n-gram is."""

    @classmethod
    def of(cls, ids: np.ndarray, offsets: np.ndarray) -> Fingerprints:
        hashes, where = ngram_hashes(ids, offsets)
        distinct, place = np.unique(hashes, return_inverse=True)
        return cls(distinct, np.searchsorted(offsets, where, side="right") - 1, place)

    def sieve(self) -> np.ndarray:
        """(2 ** FILTER_BITS,) bool: whether a hash with these upper bits exists; most others stop here."""
        table = np.zeros(1 << FILTER_BITS, dtype=bool)
        table[(self.hashes >> np.uint64(64 - FILTER_BITS)).astype(np.int64)] = True
        return table

    def found_in(self, ids: np.ndarray, offsets: np.ndarray, sieve: np.ndarray) -> np.ndarray:
        """(H,) bool: which of the hashes stand in these documents; block by block, so that memory stays bounded."""
        found = np.zeros(len(self.hashes), dtype=bool)
        if not len(self.hashes):
            return found
        starts = [0]
        while starts[-1] < len(offsets) - 1:
            reached = int(np.searchsorted(offsets, offsets[starts[-1]] + BLOCK_TOKENS, side="right")) - 1
            starts.append(max(starts[-1] + 1, reached))
        for first, last in pairwise(starts):
            part = offsets[first : last + 1]
            hashes, _ = ngram_hashes(ids[part[0] : part[-1]], part - part[0])
            hashes = hashes[sieve[(hashes >> np.uint64(64 - FILTER_BITS)).astype(np.int64)]]
            at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
            found[at[self.hashes[at] == hashes]] = True
        return found

    def shares(self, found: np.ndarray, num_documents: int) -> np.ndarray:
        """(D,) share of each document's n-grams that were found; 0 for one shorter than an n-gram."""
        total = np.bincount(self.owner, minlength=num_documents)
        hit = np.bincount(self.owner, found[self.place], minlength=num_documents)
        return hit / np.maximum(total, 1)
