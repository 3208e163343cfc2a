"""Which rows repeat others: exactly, or nearly. The answer is kept per generation, and later nights only add one.

A generation is what one night brought. Its files `gNNNN.*` hold a fate and a cluster for each of its rows and the
indexes (`names`, `near`) in which later generations look theirs up; nothing of an earlier generation is written again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data.keys import ID_DTYPE
from data.names import NameIndex, PartRows, build_names
from data.near import NearIndex, build_near, joined
from data.parts import KINDS, Part, raw_records

KEPT, EXACT, NEAR, STRADDLING = range(4)
FATES = ("kept", "exact duplicate", "near duplicate", "near duplicate of rows on both sides")
ROWS = "rows.json"


@dataclass(frozen=True)
class Generation:
    """Rows of one night: numbers `base` to `base + count - 1`."""

    folder: Path
    number: int
    base: int
    count: int

    @property
    def prefix(self) -> Path:
        return self.folder / f"g{self.number:04d}"

    @property
    def fates(self) -> np.ndarray:
        """(count,) uint8, codes of FATES."""
        return raw_records(self.prefix.with_name(f"{self.prefix.name}.fates"), np.dtype(np.uint8))

    @property
    def clusters(self) -> np.ndarray:
        """(count,) of ID_DTYPE: the name of the cluster each distinct row is in; zero for exact duplicates."""
        return raw_records(self.prefix.with_name(f"{self.prefix.name}.clusters"), ID_DTYPE)


@dataclass(frozen=True)
class Ledger:
    """All rows of all generations, numbered: which part each is of, and what became of it."""

    parts: tuple[PartRows, ...]
    generations: tuple[Generation, ...]

    def write(self, folder: Path) -> None:
        content = {
            "parts": [{**asdict(p), "part": p.part.number} for p in self.parts],
            "generations": [{"number": g.number, "base": g.base, "count": g.count} for g in self.generations],
        }
        (folder / ROWS).write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, parts_folder: Path) -> Ledger:
        content = json.loads((folder / ROWS).read_text(encoding="utf-8"))
        return cls(
            tuple(PartRows(**{**p, "part": Part(parts_folder, p["part"])}) for p in content["parts"]),
            tuple(Generation(folder, **g) for g in content["generations"]),
        )

    @property
    def next_row(self) -> int:
        return sum(p.count for p in self.parts)

    @property
    def bases(self) -> np.ndarray:
        return np.array([p.base for p in self.parts], dtype=np.int64)

    @property
    def kinds(self) -> np.ndarray:
        """Index of each part's kind in KINDS."""
        return np.array([KINDS.index(p.kind) for p in self.parts], dtype=np.int64)

    def fates_of(self, part: PartRows) -> np.ndarray:
        """Codes of FATES for the rows of a part."""
        generation, start = self.place(part)
        return generation.fates[start : start + part.count]

    def clusters_of(self, part: PartRows) -> np.ndarray:
        generation, start = self.place(part)
        return generation.clusters[start : start + part.count]

    def place(self, part: PartRows) -> tuple[Generation, int]:
        generation = next(g for g in reversed(self.generations) if g.base <= part.base)
        return generation, part.base - generation.base

    def kind_of_rows(self, rows: np.ndarray) -> np.ndarray:
        return self.kinds[np.searchsorted(self.bases, rows, side="right") - 1]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How alike is too alike."""

    threshold: float | None
    """Jaccard similarity from which rows are near duplicates; None looks at exact copies alone."""
    drop: bool
    """Whether near duplicates are left out, or only kept on one side."""


def add_generation(
    ledger: Ledger,
    parts: Sequence[PartRows],
    folder: Path,
    settings: Settings,
    is_val: Callable[[np.ndarray], np.ndarray],
) -> Ledger:
    """Decide the rows of new parts, write their generation into `folder`, and return the ledger with them.

    `is_val` says of clusters' names on which side they are. Which copy stays does not depend on the order of the
    parts: the oldest generation's, then the least name's; of exact copies in one night, the first one read.
    """
    generation = Generation(folder, len(ledger.generations), ledger.next_row, sum(p.count for p in parts))
    after = Ledger((*ledger.parts, *parts), (*ledger.generations, generation))
    repeated = build_names(parts, generation.prefix)
    for earlier in ledger.generations:
        index = NameIndex.open(earlier.prefix)
        for p in parts:
            here = slice(p.base - generation.base, p.base - generation.base + p.count)
            repeated[here] |= index.bears(p.part.ids, ledger.kinds, ledger.bases, KINDS.index(p.kind))
    fates = np.where(repeated, EXACT, KEPT).astype(np.uint8)
    clusters = np.zeros(generation.count, dtype=ID_DTYPE)
    distinct = np.flatnonzero(~repeated)
    names = names_of_rows(parts, distinct + generation.base)
    if settings.threshold is None:
        clusters[distinct] = names
    else:
        write_distinct(parts, distinct, generation)
        near, clusters[distinct] = near_fates(ledger, after, generation, names, settings.threshold, is_val)
        fates[distinct] = near if settings.drop else np.where(near == STRADDLING, STRADDLING, KEPT)
    fates.tofile(generation.prefix.with_name(f"{generation.prefix.name}.fates"))
    clusters.tofile(generation.prefix.with_name(f"{generation.prefix.name}.clusters"))
    after.write(folder)
    return after


def names_of_rows(parts: Sequence[PartRows], rows: np.ndarray) -> np.ndarray:
    """Names of rows given by number, ascending."""
    found = [p.part.ids[rows[slice(*np.searchsorted(rows, (p.base, p.base + p.count)))] - p.base] for p in parts]
    return np.concatenate(found) if found else np.zeros(0, dtype=ID_DTYPE)


def write_distinct(parts: Sequence[PartRows], distinct: np.ndarray, generation: Generation) -> None:
    """Numbers and sketches of the distinct rows, which the near index is built of."""
    rows = (distinct + generation.base).astype(np.uint32)
    rows.tofile(generation.prefix.with_name(f"{generation.prefix.name}.near.rows"))
    with generation.prefix.with_name(f"{generation.prefix.name}.near.sketches").open("wb") as stream:
        for p in parts:
            mine = rows[slice(*np.searchsorted(rows, (p.base, p.base + p.count)))] - p.base
            stream.write(p.part.sketches[mine].tobytes())


def near_fates(
    before: Ledger, after: Ledger, generation: Generation, names: np.ndarray, threshold: float,
    is_val: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Fate and cluster of each distinct row, with the earlier rows it is near to.

    A cluster bears the least name of its oldest members. Of tonight's rows of one kind in it, the least named is
    kept, unless an earlier row of that kind is near.
    """
    labels = joined(build_near(generation.prefix, threshold), *pairs_of_one_name(names))
    mine = NearIndex.open(generation.prefix)
    near_new, near_old = pairs_with_earlier(before, mine, names, threshold)
    old_names, old = np.unique(clusters_of_rows(before, near_old), return_inverse=True)
    grown = np.concatenate([labels, len(labels) + np.arange(len(old_names))])
    grown = joined(grown, near_new, len(labels) + old)
    labels, old_labels = grown[: len(labels)], grown[len(labels) :]
    fates, clusters = np.full(len(names), KEPT, dtype=np.uint8), names.copy()
    crowd = np.flatnonzero((np.bincount(labels, minlength=1)[labels] > 1) | np.isin(labels, old_labels))
    kinds = after.kind_of_rows(mine.rows[crowd])
    crowd = crowd[np.lexsort((names["lo"][crowd], names["hi"][crowd], kinds, labels[crowd]))]
    crowd_labels, kinds = labels[crowd], after.kind_of_rows(mine.rows[crowd])
    group = crowd_labels * len(KINDS) + kinds
    taken = np.unique(labels[near_new] * len(KINDS) + before.kind_of_rows(near_old))
    repeats = np.isin(group, taken)
    repeats[1:] |= group[1:] == group[:-1]
    fates[crowd[repeats]] = NEAR
    val = is_val(old_names)
    on_both = np.intersect1d(old_labels[val], old_labels[~val])
    fates[crowd[np.isin(crowd_labels, on_both)]] = STRADDLING
    # Earlier names come before tonight's, then the least: the first of each label names its cluster.
    every = np.concatenate([old_names, names[crowd]])
    every_labels = np.concatenate([old_labels, crowd_labels])
    age = np.concatenate([np.zeros(len(old_names)), np.ones(len(crowd))])
    order = np.lexsort((every["lo"], every["hi"], age, every_labels))
    found, first = np.unique(every_labels[order], return_index=True)
    clusters[crowd] = every[order][first][np.searchsorted(found, crowd_labels)]
    return fates, clusters


def clusters_of_rows(ledger: Ledger, rows: np.ndarray) -> np.ndarray:
    """Clusters of rows given by number."""
    clusters = np.zeros(len(rows), dtype=ID_DTYPE)
    for generation in ledger.generations:
        of_it = (rows >= generation.base) & (rows < generation.base + generation.count)
        clusters[of_it] = generation.clusters[rows[of_it] - generation.base]
    return clusters


def pairs_of_one_name(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of rows that bear the same name: of several kinds, as one kind has each name once."""
    order = np.argsort(names["hi"], kind="stable")
    same = np.flatnonzero(names[order][1:] == names[order][:-1])
    return order[same], order[same + 1]


def pairs_with_earlier(
    before: Ledger, mine: NearIndex, names: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Places of tonight's rows and numbers of earlier distinct rows that are near to each other, or bear one name."""
    found = [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))]
    for earlier in before.generations:
        found += NearIndex.open(earlier.prefix).matches(mine.sketches, threshold)
        index = NameIndex.open(earlier.prefix)
        first, last = index.range_of(names)
        borne = np.flatnonzero(first < last)
        found += [(borne, index.rows[first[borne]]), (borne, index.rows[last[borne] - 1])]
    pairs = np.unique(np.stack([np.concatenate([p[i] for p in found]).astype(np.int64) for i in (0, 1)]), axis=1)
    distinct = clusters_of_rows(before, pairs[1]) != np.zeros(1, dtype=ID_DTYPE)
    return pairs[0][distinct], pairs[1][distinct]
