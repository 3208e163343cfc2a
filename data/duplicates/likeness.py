"""Which of tonight's rows are alike, with each other and with earlier ones: by whole texts, then by what is their own.

Sketches of whole texts make clusters. Rows in clusters that share a prompt (`prompts`) are sketched again without it,
linked anew, and kept in an index of their own, `….own`, where later nights look up rows of such clusters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from data.duplicates.ledger import Ledger, clusters_of_rows, names_of_any_rows
from data.duplicates.names import NameIndex
from data.duplicates.near import NearIndex, build_near, joined, near_path
from data.duplicates.prompts import FEWEST_ROWS, Counting, Crowded, among, find_shared
from data.duplicates.shingles import Shingles, of_whole_texts, shingle_sets
from data.rows.keys import ID_DTYPE

Pairs = tuple[np.ndarray, np.ndarray]
"""Places among tonight's distinct rows, and numbers of earlier distinct rows."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Links of tonight's U distinct rows."""

    rows: NearIndex
    """The rows, sketched whole."""
    labels: np.ndarray
    """(U,) int64, the cluster of each as the least place in it."""
    near: Pairs
    own: np.ndarray
    """(U,) bool: rows that are compared by what is their own."""
    own_rows: NearIndex
    """These, so sketched; some texts twice, see `build_own`."""
    counting: Counting
    """The shingles that count in them."""

    @property
    def as_chat(self) -> Counting:
        """The shingles that count in them where two are of different kinds."""
        return replace(self.counting, passages=False)

    def sketches(self, ledger: Ledger, places: np.ndarray, shingles: Shingles) -> np.ndarray:
        """Of rows by place, (N, SKETCH_BYTES) uint8, made of these shingles."""
        if shingles is self.counting:
            return self.own_rows.sketches[np.cumsum(self.own)[places] - 1]
        if shingles is of_whole_texts:
            return self.rows.sketches[places]
        distinct, inverse = np.unique(places, return_inverse=True)
        return own_sketches(ledger, self.rows.rows[distinct], shingles)[inverse]


def shared_so_far(ledger: Ledger) -> np.ndarray:
    """The shingles that any generation found to be shared, ascending."""
    found = [shingles for volume in ledger.volumes for shingles in volume.shared_by_generation]
    return np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *found]))


def likeness(before: Ledger, after: Ledger, names: np.ndarray, threshold: float) -> Likeness:
    """Links of the distinct rows of the newest generation in `after`, which bear these names.

    Writes the generation's indexes, and what its rows share.
    """
    tonight = after.volumes[-1]
    labels = joined(build_near(tonight.prefix, threshold), *pairs_of_one_name(names))
    mine = NearIndex.open(tonight.prefix)
    near = pairs_with_earlier(before, mine, names, threshold)
    shared = shared_so_far(before)
    old_own = np.concatenate([np.zeros(0, dtype=np.uint32), *(index.rows for index in own_indexes(before))])
    crowded = crowded_rows(before, after, mine, labels, near)
    found, sharing = find_shared(after.parts, crowded, scratch(after))
    fresh = found[~among(found, shared)]
    fresh.tofile(tonight.path("shared"))
    counting = Counting(np.union1d(shared, fresh))
    own = np.isin(labels, np.union1d(sharing, labels[near[0][np.isin(near[1], old_own)]]))
    own_rows, entries = build_own(after, mine, np.flatnonzero(own), counting, threshold)
    labels[own] = np.flatnonzero(own)
    labels = joined(joined(labels, *entries), *pairs_of_one_name(names))
    links = Likeness(rows=mine, labels=labels, near=near, own=own, own_rows=own_rows, counting=counting)
    return replace(links, near=near_of_own(before, after, links, names, old_own, threshold)) if own.any() else links


def build_own(
    after: Ledger, mine: NearIndex, places: np.ndarray, counting: Counting, threshold: float
) -> tuple[NearIndex, Pairs]:
    """The index of rows, ascending places, by what is their own, and places that are linked by it.

    A text that counts whole stands in it a second time, after the others, as a conversation of the same words counts.
    """
    prefix = after.volumes[-1].own_prefix
    sketches = own_sketches(after, mine.rows[places], counting)
    as_chat = own_sketches(after, mine.rows[places], replace(counting, passages=False))
    twice = (sketches != as_chat).any(axis=1)
    every = np.concatenate([places, places[twice]])
    mine.rows[every].tofile(near_path(prefix, "rows"))
    np.concatenate([sketches, as_chat[twice]]).tofile(near_path(prefix, "sketches"))
    labels = build_near(prefix, threshold)
    return NearIndex.open(prefix), (every, every[labels])


def scratch(ledger: Ledger) -> Path:
    return ledger.volumes[-1].path("shingles")


def own_indexes(ledger: Ledger) -> list[NearIndex]:
    """Of each volume the rows that are compared by what is their own."""
    return [NearIndex.open(volume.own_prefix, len(volume.generations)) for volume in ledger.volumes]


def own_rows_by_what_counts(ledger: Ledger) -> Iterator[tuple[NearIndex, range, np.ndarray]]:
    """Indexes with numbers of their rows, and the shingles, ascending, that did not count when these were sketched.

    They are what the generation of the rows or an earlier one had found to be shared.
    """
    shared = np.zeros(0, dtype=np.uint64)
    for volume, index in zip(ledger.volumes, own_indexes(ledger), strict=True):
        found = volume.shared_by_generation
        begins = [n for n in range(len(found)) if n == 0 or len(found[n])]
        for first, after in pairwise([*begins, len(found)]):
            shared = np.union1d(shared, found[first]) if len(found[first]) else shared
            last = volume.generations[after - 1]
            rows = range(volume.generations[first].base, last.base + last.count)
            if ((index.rows >= rows.start) & (index.rows < rows.stop)).any():
                yield index, rows, shared


def own_sketches(ledger: Ledger, rows: np.ndarray, counting: Shingles) -> np.ndarray:
    """Sketches of rows, ascending numbers of the ledger, of the shingles that count."""
    with shingle_sets(ledger.parts, rows, scratch(ledger), counting) as sets:
        return sets.sketches()


def crowded_rows(before: Ledger, after: Ledger, mine: NearIndex, labels: np.ndarray, near: Pairs) -> Crowded:
    """Tonight's rows and the earlier ones near to them, in clusters of enough rows."""
    pairs = np.unique(np.stack([labels[near[0]], near[1]]), axis=1)
    clusters = np.concatenate([labels, pairs[0]])
    enough = np.flatnonzero(np.bincount(clusters, minlength=1)[clusters] >= FEWEST_ROWS)
    rows = np.concatenate([mine.rows.astype(np.int64), pairs[1]])[enough]
    sizes: Counter[tuple[str, str]] = Counter()
    for p in after.parts[len(before.parts) :]:
        sizes[p.source, p.kind] += p.count
    return Crowded(rows, names_of_any_rows(after.parts, rows), clusters[enough], sizes)


def near_of_own(
    before: Ledger, after: Ledger, links: Likeness, names: np.ndarray, old_own: np.ndarray, threshold: float
) -> Pairs:
    """The pairs with earlier rows, where the rows that are compared by what is their own pair by that.

    They are looked up in the indexes of such rows as those were sketched. What was sketched whole, or when less was
    shared than now, is a matter of texts.
    """
    (new, old), now = links.near, links.own_rows
    stays = ~links.own[new] | (names[new] == names_of_any_rows(before.parts, old))
    proven, whole = [(new[stays], old[stays])], ~stays & ~np.isin(old, old_own)
    doubtful, places = [(new[whole], old[whole])], np.searchsorted(links.rows.rows, now.rows)
    asked, then = np.array(now.sketches), links.counting.shared
    for index, rows, shared in own_rows_by_what_counts(before):
        if len(shared) != len(then):
            asked, then = sketches_as_of(after, links, Counting(shared)), shared
        as_now = (asked == now.sketches).all(axis=1)
        for asking, found in index.matches(asked, threshold, rows):
            for some, which in ((proven, as_now[asking]), (doubtful, ~as_now[asking])):
                some.append((places[asking[which]], found[which]))
    new, old = distinct_pairs(doubtful)
    kept, tonight = np.zeros(len(new), dtype=bool), links.rows.rows[new].astype(np.int64)
    for counting in (links.counting, links.as_chat):
        with shingle_sets(after.parts, np.union1d(tonight, old), scratch(after), counting) as sets:
            pairs = zip(tonight.tolist(), old.tolist(), strict=True)
            kept |= np.array([sets.alike(*pair, threshold) for pair in pairs], dtype=bool)
    return distinct_pairs([*proven, (new[kept], old[kept])])


def sketches_as_of(after: Ledger, links: Likeness, counting: Counting) -> np.ndarray:
    """Sketches of the entries of tonight's own index with what counted on an earlier night."""
    rows, first = links.own_rows.rows, int(links.own.sum())
    as_chat = own_sketches(after, rows[first:], replace(counting, passages=False))
    return np.concatenate([own_sketches(after, rows[:first], counting), as_chat])


def pairs_of_one_name(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of rows that bear the same name: of several kinds, as one kind has each name once."""
    order = np.argsort(names["hi"], kind="stable")
    same = np.flatnonzero(names[order][1:] == names[order][:-1])
    return order[same], order[same + 1]


def pairs_with_earlier(before: Ledger, mine: NearIndex, names: np.ndarray, threshold: float) -> Pairs:
    """Places of tonight's rows and numbers of earlier distinct rows that are near to each other, or bear one name."""
    found: list[Pairs] = []
    for earlier in before.volumes:
        found += NearIndex.open(earlier.prefix, len(earlier.generations)).matches(mine.sketches, threshold)
        index = NameIndex.open(earlier.prefix)
        first, last = index.range_of(names)
        borne = np.flatnonzero(first < last)
        found += [(borne, index.rows[first[borne]]), (borne, index.rows[last[borne] - 1])]
    pairs = distinct_pairs(found)
    distinct = clusters_of_rows(before, pairs[1]) != np.zeros(1, dtype=ID_DTYPE)
    return pairs[0][distinct], pairs[1][distinct]


def distinct_pairs(found: list[Pairs]) -> Pairs:
    """Each pair once, in order of the first."""
    nothing = np.zeros(0, dtype=np.int64)
    pairs = np.stack([np.concatenate([nothing, *(p[i] for p in found)]).astype(np.int64) for i in (0, 1)])
    pairs = np.unique(pairs, axis=1)
    return pairs[0], pairs[1]
