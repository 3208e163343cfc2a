"""MinHash sketches: how alike two texts are, from eighty bytes a text.

A text is a set of shingles, five words in a row from each word on (fewer at its end); ASCII case and white space do
not count, and each character beyond U+07FF (Chinese, Japanese, Korean, emoji) is a word of its own. Every shingle is
hashed once and falls into one of eighty bins, of which the minimum stays: one permutation hashing (Li, Owen and Zhang
2012), empty bins filled by optimal densification (Shrivastava 2017), eight bits kept of each (Li and König 2010).
Arrays go over a whole chunk at once; docs/log.md compares it with a library that hashes each shingle eighty times.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pyarrow as pa

from data.hashing import mix, powers
from data.rows.keys import WHITE_SPACE

SHINGLE_WORDS = 5
BANDS, ROWS_PER_BAND = 20, 4
"""A pair of Jaccard similarity 0.8 shares no band once in 38,000; one of 0.3 shares one in 7 of 50 cases."""
SKETCH_BYTES = BANDS * ROWS_PER_BAND
SLICE_BYTES = 1 << 20
"""Texts and their minima hashed at once; the arrays stay in the cache of a core."""
MULTIPLIER = 0x9E3779B1
EMPTY = np.uint32(0xFFFFFFFF)
SEPARATORS = WHITE_SPACE + b"\0"
FOLDED = bytes(0 if b in SEPARATORS else b + 32 if 65 <= b <= 90 else b for b in range(256))
"""Byte → its value in a word's hash: ASCII letters in lower case, white space nothing."""
SPACE, CONTINUES, NARROW, WIDE = range(4)
BYTE_CLASSES = bytes(
    SPACE if b in SEPARATORS else WIDE if b >= 0xE0 else CONTINUES if 0x80 <= b < 0xC0 else NARROW for b in range(256)
)
"""Byte → white space, continues a character, begins a narrow one, begins a wide one."""


def word_starts(joined: bytes) -> np.ndarray:
    """Where words begin in bytes that begin with white space: after white space, before and after wide characters."""
    classes = np.frombuffer(joined.translate(BYTE_CLASSES), dtype=np.uint8)
    apart = classes[:-1] == SPACE
    apart[1:] |= (classes[1:-1] == CONTINUES) & (classes[:-2] == CONTINUES)  # only wide characters have three bytes
    return np.flatnonzero((classes[1:] == WIDE) | ((classes[1:] == NARROW) & apart)) + 1


def word_hashes(joined: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Start and hash (uint64) of every word of bytes that begin with white space.

    A word's polynomial hash is a difference of prefix sums, so a chunk costs a few passes and no loop over words.
    """
    starts = word_starts(joined)
    up, down = powers(MULTIPLIER, 1 << len(joined).bit_length(), np.uint32)
    terms = np.frombuffer(joined.translate(FOLDED), dtype=np.uint8) * up[: len(joined)]
    sums = np.cumsum(terms, dtype=np.uint32)
    ends = np.append(starts[1:], len(joined))
    return starts, mix(((sums[ends - 1] - sums[starts - 1]) * down[starts]).astype(np.uint64))


def joined_bytes(texts: pl.Series) -> tuple[bytes, np.ndarray]:
    """The texts one after another, white space before each, and offsets (N + 1,)."""
    spaced = (" " + texts).to_arrow(compat_level=pl.CompatLevel.oldest())
    if isinstance(spaced, pa.ChunkedArray):
        spaced = spaced.combine_chunks()
    offsets = np.frombuffer(spaced.buffers()[1], dtype=np.int64)[spaced.offset : spaced.offset + len(spaced) + 1]
    return bytes(memoryview(spaced.buffers()[2])[offsets[0] : offsets[-1]]), offsets - offsets[0]


def shingle_hashes(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """64-bit hash of every shingle of every text, and the text's number; a text has as many as it has words."""
    joined, offsets = joined_bytes(texts)
    starts, words = word_hashes(joined)
    owner = np.repeat(np.arange(len(texts)), np.diff(np.searchsorted(starts, offsets)))
    ends_apart = SHINGLE_WORDS - 1
    padded = np.zeros(len(words) + ends_apart * (len(texts) + 1), dtype=np.uint64)
    place = np.arange(len(words)) + ends_apart * owner
    padded[place] = words
    hashes = padded[: len(padded) - ends_apart].copy()
    for step in range(1, SHINGLE_WORDS):
        hashes ^= hashes >> np.uint64(29)
        hashes *= np.uint64(0xD6E8FEB86659FD93)
        hashes += padded[step : len(padded) - ends_apart + step]
    return mix(hashes[place]), owner


@cache
def detours() -> np.ndarray:
    """In which order an empty bin asks the bins, the same for every text: (attempts, bins), each column all of them."""
    order = np.repeat(np.arange(SKETCH_BYTES)[:, None], SKETCH_BYTES, axis=1)
    return np.random.default_rng(11).permuted(order, axis=0)


@cache
def multipliers() -> np.ndarray:
    """An odd number for each bin, (SKETCH_BYTES,) uint32."""
    return np.random.default_rng(12).integers(0, 1 << 32, SKETCH_BYTES, dtype=np.uint32) | np.uint32(1)


def fill_empty_bins(minima: np.ndarray) -> np.ndarray:
    """Give every empty bin of (N, SKETCH_BYTES) the value of another bin; a text without any shingle stays empty."""
    dense = minima.copy()
    values, filled = minima.reshape(-1), dense.reshape(-1)
    place = np.flatnonzero(values == EMPTY)
    for detour in detours():
        if not len(place):
            break
        bins = place % SKETCH_BYTES
        found = values[place - bins + detour[bins]]
        filled[place] = found
        place = place[found == EMPTY]
    return dense


def sketches_of_shingles(hashes: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Sketch of each of `count` sets of shingles, (count, SKETCH_BYTES) uint8; `owner` is the set of each hash."""
    bins = ((hashes >> np.uint64(32)) * np.uint64(SKETCH_BYTES)) >> np.uint64(32)
    minima = np.full(count * SKETCH_BYTES, EMPTY)
    np.minimum.at(minima, owner * SKETCH_BYTES + bins.astype(np.int64), hashes.astype(np.uint32))
    dense = fill_empty_bins(minima.reshape(count, SKETCH_BYTES))
    # Hashed by bin: the few values of a short text stand in many bins, and must not agree by chance in all of them.
    return ((dense * multipliers()) >> np.uint32(24)).astype(np.uint8)


def sketches_of(texts: pl.Series) -> np.ndarray:
    """Sketch of each text, (N, SKETCH_BYTES) uint8; a function of each text alone."""
    if not len(texts):
        return np.zeros((0, SKETCH_BYTES), dtype=np.uint8)
    sizes = texts.str.len_bytes().cast(pl.UInt64) + SKETCH_BYTES * EMPTY.itemsize
    slices = texts.to_frame("text").with_columns((sizes.cum_sum() // SLICE_BYTES).alias("slice"))
    parts = (part["text"] for part in slices.partition_by("slice", maintain_order=True))
    return np.concatenate([sketches_of_shingles(*shingle_hashes(part), len(part)) for part in parts])


def similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity of pairs of sketches, (N,) float; corrected for bytes that agree by chance."""
    agree = (one == other).mean(axis=1)
    return (agree - 1 / 256) / (1 - 1 / 256)


def band_keys(sketches: np.ndarray, band: int) -> np.ndarray:
    """The band of each sketch as one number, (N,) uint32."""
    start = band * ROWS_PER_BAND
    return np.ascontiguousarray(sketches[:, start : start + ROWS_PER_BAND]).view(np.uint32)[:, 0]
