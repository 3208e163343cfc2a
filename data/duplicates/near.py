"""Near duplicates by locality-sensitive hashing: rows that share a band of their sketches are compared.

Banding: Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3. The bands of a volume lie sorted on
disk, so that a later night looks its own rows up and touches nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.files import raw_records
from data.folding import join_bytes
from data.hashing import mix
from data.rows.sketch import BANDS, SKETCH_BYTES, band_keys, similarity

ALL_PAIRS_UP_TO = 16
"""Rows of one band key that are all compared with each other; in longer runs each is compared with as many
neighbours and with the first."""
STANDARD_ERRORS = 3
"""How far below the threshold an estimate may lie: at 0.8 a true near duplicate is missed once in 400."""
PAIRS_AT_ONCE = 200_000
PLACE = np.uint64(0xFFFFFFFF)
NO_ENTRY = np.uint64(0xFFFFFFFFFFFFFFFF)
"""Stands at the end of a folded band, once for each entry that was left out. No row has this place."""


def accepted_from(threshold: float) -> float:
    """The estimate from which a pair counts as near."""
    return threshold - STANDARD_ERRORS * float(np.sqrt(threshold * (1 - threshold) / SKETCH_BYTES))


@dataclass(frozen=True)
class NearIndex:
    """Distinct rows of a volume: their numbers, sketches, and per band their keys in order."""

    rows: np.ndarray
    """(U,) uint32, numbers of rows."""
    sketches: np.ndarray
    """(U, SKETCH_BYTES) uint8."""
    bands: np.ndarray
    """(BANDS, U) uint64, by key, which is the upper half; the lower is the place among the U."""
    num_generations: int = 1
    """Of how many the rows are. ALL_PAIRS_UP_TO entries of a key are found of each, in whatever volume it is."""

    @classmethod
    def open(cls, prefix: Path, num_generations: int = 1) -> NearIndex:
        rows = raw_records(near_path(prefix, "rows"), np.dtype("<u4"))
        sketches = raw_records(near_path(prefix, "sketches"), np.dtype(np.uint8), SKETCH_BYTES)
        bands = raw_records(near_path(prefix, "bands"), np.dtype("<u8"))
        return cls(rows, sketches, bands.reshape(BANDS, len(rows)), num_generations)

    def matches(
        self, sketches: np.ndarray, threshold: float, rows: range | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs (place of the asked sketch, row number here) that are near; of some generations' `rows`, or of all."""
        for band in range(BANDS if len(self.rows) else 0):
            keys = self.bands[band]
            asked = band_keys(sketches, band).astype(np.uint64) << np.uint64(32)
            at, hit = np.searchsorted(keys, asked), np.arange(len(asked))
            if rows is not None:
                at = self.first_from(rows.start, keys, at, np.searchsorted(keys, asked | PLACE, side="right"))
            for lag in range(ALL_PAIRS_UP_TO * self.num_generations):
                hit = hit[at[hit] + lag < len(keys)]
                entries = keys[at[hit] + lag]
                same = (entries >> np.uint64(32) == asked[hit] >> np.uint64(32)) & (entries != NO_ENTRY)
                hit, here = hit[same], (entries[same] & PLACE).astype(np.int64)
                if rows is not None:
                    inside = self.rows[here] < rows.stop
                    hit, here = hit[inside], here[inside]
                if not len(hit):
                    break
                near = similarity(sketches[hit], self.sketches[here]) >= accepted_from(threshold)
                yield hit[near], self.rows[here[near]]

    def first_from(self, row: int, keys: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Where in each run of a key, from `first` to before `last`, entries of the generations from `row` on begin.

        `row` is the first number of a generation: entries of a key stand in order of generations, not of rows.
        """
        low, high = first, last
        while (unsure := low < high).any():
            middle = (low + high) // 2
            entries = keys[np.minimum(middle, len(keys) - 1)]
            places = np.minimum(entries & PLACE, np.uint64(len(self.rows) - 1)).astype(np.int64)
            before = (self.rows[places] < row) & (entries != NO_ENTRY)
            low, high = np.where(unsure & before, middle + 1, low), np.where(unsure & ~before, middle, high)
        return low


def near_path(prefix: Path, column: str) -> Path:
    return prefix.with_name(f"{prefix.name}.near.{column}")


def fold_near(indexes: Sequence[tuple[Path, int]], into: Path) -> None:
    """Write indexes, each given with the number of its generations, as one that finds the same rows.

    Entries of a key stand in order of generations. Those of a generation beyond its first ALL_PAIRS_UP_TO are found in
    no volume, and are left out, so that a key that all rows of all nights have is as quick to look up as before.
    """
    for column in ("rows", "sketches"):
        join_bytes([near_path(prefix, column) for prefix, _ in indexes], near_path(into, column))
    opened = [NearIndex.open(prefix, number) for prefix, number in indexes]
    bases = np.cumsum([0, *(len(index.rows) for index in opened)], dtype=np.uint64)
    with near_path(into, "bands").open("xb") as stream:
        for band in range(BANDS):
            entries = np.concatenate([found_in(index, band) + base for index, base in zip(opened, bases, strict=False)])
            keys = (entries >> np.uint64(32)).astype(np.uint32)
            stream.write(entries[np.argsort(keys, kind="stable")].tobytes())
            stream.write(np.full(int(bases[-1]) - len(entries), NO_ENTRY).tobytes())


def found_in(index: NearIndex, band: int) -> np.ndarray:
    """The entries of a band that a look-up can find."""
    entries = index.bands[band]
    if index.num_generations > 1:
        return entries[: np.searchsorted(entries, NO_ENTRY)]
    keys = entries >> np.uint64(32)
    hidden = keys[ALL_PAIRS_UP_TO:] == keys[:-ALL_PAIRS_UP_TO]
    return entries[np.append(np.ones(min(ALL_PAIRS_UP_TO, len(keys)), dtype=bool), ~hidden)]


def build_near(prefix: Path, threshold: float) -> np.ndarray:
    """Sort the bands of the sketches at `prefix`; returns the cluster of each, (U,) int64, as the least place in it."""
    sketches = raw_records(near_path(prefix, "sketches"), np.dtype(np.uint8), SKETCH_BYTES)
    labels = np.arange(len(sketches), dtype=np.int64)
    order = order_of_content(sketches)
    with near_path(prefix, "bands").open("wb") as stream:
        for band in range(BANDS):
            keys = band_keys(sketches, band)[order].astype(np.uint64) << np.uint64(32)
            keys |= np.arange(len(sketches), dtype=np.uint64)
            keys.sort()
            keys = (keys & ~PLACE) | order[keys & PLACE]
            stream.write(keys.tobytes())
            for one, other in candidates(keys):
                apart = labels[one] != labels[other]
                one, other = one[apart], other[apart]
                near = similarity(sketches[one], sketches[other]) >= accepted_from(threshold)
                labels = joined(labels, one[near], other[near])
    return labels


def order_of_content(sketches: np.ndarray) -> np.ndarray:
    """Places in an order that depends on the sketches alone, (U,) uint64: which rows of a long run are compared with
    which must not depend on the order in which they were read."""
    columns = sketches.view(np.uint64).T
    hashes = np.zeros(len(sketches), dtype=np.uint64)
    for column in columns:
        hashes = mix(hashes ^ column)
    return np.argsort(hashes, kind="stable").astype(np.uint64)


def candidates(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of places that share a key, in bounded batches."""
    key, place = keys >> np.uint64(32), (keys & PLACE).astype(np.int64)
    for lag in range(1, ALL_PAIRS_UP_TO):
        hit = np.flatnonzero(key[lag:] == key[:-lag])
        if not len(hit):
            return
        for start in range(0, len(hit), PAIRS_AT_ONCE):
            some = hit[start : start + PAIRS_AT_ONCE]
            yield place[some], place[some + lag]
    begins = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    head = np.repeat(begins, np.diff(np.append(begins, len(key))))
    far = np.flatnonzero(np.arange(len(key)) - head >= ALL_PAIRS_UP_TO)
    for start in range(0, len(far), PAIRS_AT_ONCE):
        some = far[start : start + PAIRS_AT_ONCE]
        yield place[head[some]], place[some]


def joined(labels: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Labels after joining the clusters of these pairs; a cluster is named by its least place."""
    if not len(one):
        return labels
    from scipy.sparse import coo_matrix  # half a second of import that a question about a row need not pay
    from scipy.sparse.csgraph import connected_components

    ends, inverse = np.unique(np.concatenate([labels[one], labels[other]]), return_inverse=True)
    pairs = inverse.reshape(2, -1)
    edges = coo_matrix((np.ones(len(one), dtype=bool), (pairs[0], pairs[1])), shape=(len(ends), len(ends)))
    _, component = connected_components(edges, directed=False)
    least = np.full(component.max() + 1, len(labels), dtype=np.int64)
    np.minimum.at(least, component, ends)
    renamed = np.arange(len(labels), dtype=np.int64)
    renamed[ends] = least[component]
    return renamed[labels]
