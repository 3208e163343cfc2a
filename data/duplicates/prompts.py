"""Text that many rows share and that says nothing of one: a long instruction, the same question, a page's header.

By whole texts such rows look like near duplicates, whatever else is in them, and single linkage makes them one cluster.
So where a cluster is crowded, the shingles that its rows share are found, by counting, and count no longer: neither in
sketches nor in texts. They are recorded with the generation that found them and never count again.

What is shared must not be mistaken for what is copied. In a conversation only what the user says can be shared, so the
answers always count. A text has no such part: it counts whole unless it holds a passage of its own, and only what a
large share of a source's texts has is shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from data.duplicates.shingles import shingle_sets
from data.rows.parts import PartRows, asked_of, places_in_parts, spoken_of
from data.rows.sketch import SHINGLE_WORDS, shingle_hashes

FEWEST_ROWS = 8
"""Rows of one cluster from which a shingle is shared."""
TEXT_SHARE = 0.1
"""For texts, the least share of tonight's rows of a source as well: fewer may well be copies of one page."""
OWN_WORDS = 12
"""Words in a row that a text must have of its own: less is an edit of what it shares."""
MOST_COUNTED = 4_000
"""Rows of a cluster and source in which shingles are counted, those of the least names."""


@dataclass(frozen=True)
class Counting:
    """Which shingles of a row count, where some are shared: a function of the row and of what is shared."""

    shared: np.ndarray
    """uint64, ascending."""
    passages: bool = True
    """Whether a text without a passage of its own counts whole; else it counts as a conversation does."""

    def __call__(self, kind: str, content: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        hashes, owner = shingle_hashes(spoken_of(content))
        own = ~among(hashes, self.shared)
        longest = longest_runs(own, owner, len(content))
        counts_whole = longest < (OWN_WORDS + SHINGLE_WORDS - 1 if self.passages and kind != "chat" else 1)
        counts = own | counts_whole[owner]
        return hashes[counts], owner[counts]


def of_prompts(_kind: str, content: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """The shingles that may turn out to be shared."""
    return shingle_hashes(asked_of(content))


def among(hashes: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Which hashes are among some ascending ones, (N,) bool."""
    if not len(some):
        return np.zeros(len(hashes), dtype=bool)
    return np.asarray(some[np.minimum(np.searchsorted(some, hashes), len(some) - 1)] == hashes)


def longest_runs(marked: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Length of each owner's longest run of marked things, (count,); owners ascend."""
    place = np.arange(len(marked))
    broken = ~marked | (np.diff(owner, prepend=-1) > 0)
    begins = np.maximum.accumulate(np.where(broken, place + ~marked, 0)) if len(marked) else place
    longest = np.zeros(count, dtype=np.int64)
    np.maximum.at(longest, owner, np.where(marked, place - begins + 1, 0))
    return longest


@dataclass(frozen=True)
class Crowded:
    """Rows in clusters that are large enough to share something, and tonight's rows of each source."""

    rows: np.ndarray
    """(N,) numbers."""
    names: np.ndarray
    """(N,) of ID_DTYPE."""
    clusters: np.ndarray
    """(N,) any integers."""
    source_sizes: Mapping[tuple[str, str], int]
    """Tonight's rows of each source and kind."""

    def groups(self, parts: Sequence[PartRows]) -> Iterator[tuple[int, np.ndarray, float]]:
        """Clusters, by source: the cluster, rows to count in (ascending), and in how many of them a shingle is shared.

        Groups in which too few rows could share one are left out unread.
        """
        order = np.argsort(self.rows, kind="stable")
        found = [(p.source, p.kind, len(places)) for p, places in places_in_parts(parts, self.rows[order])]
        sources = sorted({(source, kind) for source, kind, _ in found})
        numbers = [sources.index((source, kind)) for source, kind, _ in found]
        source = np.empty(len(order), dtype=np.int64)
        source[order] = np.repeat(np.array(numbers, dtype=np.int64), [count for *_, count in found])
        order = np.lexsort((self.names["lo"], self.names["hi"], source, self.clusters))
        edges = (np.diff(self.clusters[order], prepend=-1) != 0) | (np.diff(source[order], prepend=-1) != 0)
        for start, stop in pairwise(np.append(np.flatnonzero(edges), len(order)).tolist()):
            its = sources[source[order[start]]]
            needed = max(FEWEST_ROWS, 0 if its[1] == "chat" else TEXT_SHARE * self.source_sizes.get(its, 0))
            if stop - start >= needed:
                counted = self.rows[order[start : min(stop, start + MOST_COUNTED)]]
                least = max(FEWEST_ROWS, needed * len(counted) / (stop - start))
                yield int(self.clusters[order[start]]), np.sort(counted), least


def find_shared(parts: Sequence[PartRows], crowded: Crowded, scratch: Path) -> tuple[np.ndarray, np.ndarray]:
    """Shingles, (S,) uint64 ascending, that rows of a cluster share, and the clusters, ascending, that have some.

    `scratch` is a file that is gone afterwards.
    """
    groups = list(crowded.groups(parts))
    shared, clusters = [np.zeros(0, dtype=np.uint64)], []
    wanted = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *(rows for _, rows, _ in groups)]))
    with shingle_sets(parts, wanted, scratch, of_prompts) as sets:
        for cluster, rows, least in groups:
            found, count = np.unique(np.concatenate([sets.of(row) for row in rows.tolist()]), return_counts=True)
            if (count >= least).any():
                shared.append(found[count >= least])
                clusters.append(cluster)
    return np.unique(np.concatenate(shared)), np.unique(np.array(clusters, dtype=np.int64))
