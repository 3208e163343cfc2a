"""Which rows repeat others: exactly, or nearly. Later nights only add a generation to what was decided.

A volume's indexes (`names`, `near`) are where later generations look their rows up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.duplicates.leaders import Crowd, kept_rows
from data.duplicates.ledger import (
    EXACT,
    KEPT,
    NEAR,
    NOBODY,
    STRADDLING,
    Generation,
    Ledger,
    Volume,
    clusters_of_rows,
    kept_of_rows,
    names_of_any_rows,
    names_of_rows,
    sketches_of_rows,
)
from data.duplicates.likeness import Likeness, likeness, own_sketches, scratch
from data.duplicates.names import NameIndex, build_names
from data.duplicates.near import joined, near_path
from data.duplicates.shingles import Shingles, of_whole_texts
from data.rows.keys import ID_DTYPE
from data.rows.parts import KINDS, PartRows, places_in_parts


@dataclass(frozen=True, kw_only=True)
class NearDuplicateRules:
    """How alike is too alike."""

    threshold: float | None
    """Jaccard similarity from which rows are near duplicates; None looks at exact copies alone."""
    drop: bool
    """Whether near duplicates are left out, or only kept on one side."""


def add_generation(
    ledger: Ledger,
    parts: Sequence[PartRows],
    folder: Path,
    rules: NearDuplicateRules,
    is_val: Callable[[np.ndarray], np.ndarray],
) -> Ledger:
    """Decide the rows of new `parts` by `rules`, write their generation into `folder`; returns the ledger with them.

    `is_val` maps the names of clusters, (N,) of ID_DTYPE, to whether each is on the validation side, (N,) bool. Which
    rows stay does not depend on the order of the parts: the oldest generation's, then those of the least names; of
    exact copies in one night, the first one read.
    """
    generation = Generation(len(ledger.generations), ledger.next_row, sum(p.count for p in parts))
    tonight = Volume(folder, (generation,))
    after = Ledger((*ledger.parts, *parts), (*ledger.volumes, tonight))
    repeated = build_names(parts, tonight.prefix)
    for earlier in ledger.volumes:
        index = NameIndex.open(earlier.prefix)
        for p in parts:
            here = slice(p.base - generation.base, p.base - generation.base + p.count)
            repeated[here] |= index.bears(p.part.ids, ledger.kinds, ledger.bases, KINDS.index(p.kind))
    fates = np.where(repeated, EXACT, KEPT).astype(np.uint8)
    clusters = np.zeros(generation.count, dtype=ID_DTYPE)
    distinct = np.flatnonzero(~repeated)
    names = names_of_rows(parts, distinct + generation.base)
    kept = np.full(generation.count, NOBODY, dtype=np.uint32)
    if rules.threshold is None:
        clusters[distinct], kept[distinct] = names, distinct + generation.base
    else:
        write_distinct(parts, distinct, tonight)
        decided = near_fates(ledger, after, names, rules.threshold, rules.drop, is_val)
        fates[distinct], clusters[distinct], kept[distinct] = decided
    for suffix, column in (("fates", fates), ("clusters", clusters), ("kept", kept)):
        column.tofile(tonight.path(suffix))
    after.write(folder)
    return after


def write_distinct(parts: Sequence[PartRows], distinct: np.ndarray, tonight: Volume) -> None:
    """Numbers and sketches of the distinct rows, which the near index is built of."""
    rows = (distinct + tonight.base).astype(np.uint32)
    rows.tofile(near_path(tonight.prefix, "rows"))
    with near_path(tonight.prefix, "sketches").open("wb") as stream:
        for p, places in places_in_parts(parts, rows):
            stream.write(p.part.sketches[places].tobytes())


def near_fates(
    before: Ledger, after: Ledger, names: np.ndarray, threshold: float, drop: bool,
    is_val: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Of each of tonight's distinct rows fate and cluster, with the earlier rows it is near to, and which row stays."""
    links = likeness(before, after, names, threshold)
    mine, labels, (near_new, near_old) = links.rows, links.labels, links.near
    old_names, old = np.unique(clusters_of_rows(before, near_old), return_inverse=True)
    grown = np.concatenate([labels, len(labels) + np.arange(len(old_names))])
    grown = joined(grown, near_new, len(labels) + old)
    labels, old_labels = grown[: len(labels)], grown[len(labels) :]
    fates, clusters, kept = np.full(len(names), KEPT, dtype=np.uint8), names.copy(), np.array(mine.rows)
    crowd = np.flatnonzero((np.bincount(labels, minlength=1)[labels] > 1) | np.isin(labels, old_labels))
    clusters[crowd] = names_of_clusters(old_names, old_labels, names[crowd], labels[crowd])
    near, earlier = kept_and_near(before, near_new, near_old)
    rivals = is_val(clusters[near]) != is_val(clusters_of_rows(before, earlier))
    same_text = rivals & (names[near] == names_of_any_rows(before.parts, earlier))
    fates[near[same_text]], kept[near[same_text]] = STRADDLING, earlier[same_text]
    same_kind = after.kind_of_rows(mine.rows[near]) == after.kind_of_rows(earlier)
    across = rivals & ~same_kind
    every, rest = (near, earlier, rivals), crowd[fates[crowd] == KEPT]
    groups = labels[rest] * len(KINDS) + after.kind_of_rows(mine.rows[rest])
    order = np.lexsort((names["lo"][rest], names["hi"][rest], groups))
    rest, groups = rest[order], groups[order]
    repeats = np.full(len(names), NOBODY)

    def settle(which: np.ndarray, way: Way, drop: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        some = rest[which]
        these = crowd_of(before, after, links, some, groups[which], way)
        return some, *kept_rows(these, after.parts, scratch(after), threshold, drop, way.shingles, repeats[some])

    some, repeated, torn = settle(
        links.own[rest] & np.isin(rest, near[across]),
        Way(links.as_chat, (near[across], earlier[across], rivals[across])),
        False,
    )
    repeats[some[torn]] = repeated[torn]
    for which, way in (
        (~links.own[rest], Way(of_whole_texts, every)),
        (links.own[rest], Way(links.counting, every)),
    ):
        some, kept[rest[which]], torn = settle(which, way, drop)
        fates[some[kept[some] != mine.rows[some]]] = NEAR
        fates[some[torn]] = STRADDLING
    return fates, clusters, kept


@dataclass(frozen=True)
class Way:
    """A way in which some of tonight's rows are compared with others."""

    shingles: Shingles
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]
    """(P,) each: places of tonight's rows, ascending, earlier rows, and whether the two are on different sides."""


def names_of_clusters(
    old_names: np.ndarray, old_labels: np.ndarray, names: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """The name of the cluster each of tonight's rows is in: the least name of its oldest members."""
    every, every_labels = np.concatenate([old_names, names]), np.concatenate([old_labels, labels])
    age = np.concatenate([np.zeros(len(old_names)), np.ones(len(names))])
    order = np.lexsort((every["lo"], every["hi"], age, every_labels))
    found, first = np.unique(every_labels[order], return_index=True)
    return every[order][first][np.searchsorted(found, labels)]


def kept_and_near(before: Ledger, near_new: np.ndarray, near_old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of tonight's rows, ascending, and numbers of the earlier kept rows that each is near to, by estimate.

    An earlier row that was left out stands for the one that it was left out for.
    """
    pairs = np.unique(np.stack([near_new, kept_of_rows(before, near_old).astype(np.int64)]), axis=1)
    return pairs[0], pairs[1]


def crowd_of(
    before: Ledger, after: Ledger, links: Likeness, tonight: np.ndarray, groups: np.ndarray, way: Way
) -> Crowd:
    """Tonight's rows by place, in order, and the earlier ones that they pair with, all sketched in this way."""
    mine, (near, earlier, rivals) = links.rows, way.pairs
    place = np.full(len(mine.rows), -1)
    place[tonight] = np.arange(len(tonight))
    inside = place[near] >= 0
    near, earlier, rivals = near[inside], earlier[inside], rivals[inside]
    numbers = np.unique(earlier)
    names = names_of_rows(before.parts, numbers)
    whole = way.shingles is of_whole_texts
    sketches = sketches_of_rows(before.parts, numbers) if whole else own_sketches(after, numbers, way.shingles)
    by_name = np.lexsort((names["lo"], names["hi"]))
    new, old = len(numbers) + place[near], np.argsort(by_name)[np.searchsorted(numbers, earlier)]
    order = np.lexsort((old, new))
    same_kind = after.kind_of_rows(mine.rows[near]) == after.kind_of_rows(earlier)
    return Crowd(
        rows=np.concatenate([numbers[by_name], mine.rows[tonight].astype(np.int64)]),
        sketches=np.concatenate([sketches[by_name], links.sketches(after, tonight, way.shingles)]),
        groups=groups, near=np.stack([new[order], old[order]], axis=1), same_kind=same_kind[order],
        rivals=rivals[order],
    )  # fmt: skip
