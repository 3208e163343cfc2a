"""Which rows of a cluster stay: every one that is no near duplicate of a row that stays already.

A cluster is what single linkage made of estimates, so it may be a long chain, or rows of one template that are three
fifths alike. The side of the split is the cluster's; what is left out is decided row by row, in order of names, against
the rows kept so far ("leaders"). Estimates propose and texts decide: only equal sketches are believed unread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from data.duplicates.ledger import NOBODY
from data.duplicates.near import accepted_from
from data.duplicates.shingles import Shingles, of_whole_texts, shingle_sets
from data.rows.parts import PartRows
from data.rows.sketch import BANDS, similarity

LEADERS_PER_BUCKET = 16
"""Kept rows with one band key that later rows are compared with, the first ones; each row looks into BANDS buckets."""
MOST_READ = 16
"""Leaders whose text a row's is compared with, the most alike ones by estimate. What is not proven so far is kept."""


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """Rows that may repeat others. First those kept in earlier nights, in order of name, then tonight's."""

    rows: np.ndarray
    """(E + N,) numbers of rows; tonight's one group after another, in each in order of name."""
    sketches: np.ndarray
    """(E + N, SKETCH_BYTES) uint8."""
    groups: np.ndarray
    """(N,) cluster and kind of tonight's rows."""
    near: np.ndarray
    """(P, 2) places of tonight's rows, ascending, and of the earlier ones that each is compared with."""
    same_kind: np.ndarray
    """(P,) whether the two of a pair are of one kind."""
    rivals: np.ndarray
    """(P,) whether the earlier row of a pair is on another side than tonight's."""

    @property
    def num_earlier(self) -> int:
        return len(self.rows) - len(self.groups)

    @property
    def bounds(self) -> np.ndarray:
        """Places where groups begin, and the end."""
        begins = np.flatnonzero(np.diff(self.groups, prepend=-1))
        return np.append(begins, len(self.groups)) + self.num_earlier

    def unclear(self, drop: bool) -> np.ndarray:
        """Numbers of the rows, ascending, whose texts may be asked for: of pairs and groups that differ in sketches."""
        bounds = self.bounds
        first = np.repeat(bounds[:-1], np.diff(bounds))
        differs = (self.sketches[self.num_earlier :] != self.sketches[first]).any(axis=1) & drop
        some = np.logical_or.reduceat(differs, bounds[:-1] - self.num_earlier) if len(first) else differs
        inside = np.flatnonzero(np.repeat(some, np.diff(bounds))) + self.num_earlier
        pairs = self.near[self.rivals | (self.same_kind & drop)]
        apart = (self.sketches[pairs[:, 0]] != self.sketches[pairs[:, 1]]).any(axis=1)
        return np.unique(self.rows[np.concatenate([inside, pairs[apart].ravel()])])

    def earlier(self, wanted: np.ndarray) -> list[list[int]]:
        """Of each of tonight's rows the earlier ones of the wanted pairs."""
        pairs = self.near[wanted]
        ends = np.searchsorted(pairs[:, 0], np.arange(self.num_earlier, len(self.rows)), side="right").tolist()
        others = pairs[:, 1].tolist()
        return [others[start:stop] for start, stop in pairwise([0, *ends])]


def kept_rows(
    crowd: Crowd, parts: Sequence[PartRows], scratch: Path, threshold: float, drop: bool,
    shingles: Shingles = of_whole_texts, repeats: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Of each of tonight's rows the kept row that it is or that it is left out for, (N,) uint32, and which are torn.

    A row is left out as it repeats a row of its kind, if `drop`, or else is torn: one that it repeats is on the other
    side. Costs at most BANDS * LEADERS_PER_BUCKET estimates and MOST_READ looks into texts a row, however large a
    cluster, and one for each earlier neighbour on the other side. `scratch` is a file that is gone afterwards; texts
    are compared by the `shingles` that the crowd's sketches are made of. `repeats`, (N,), are numbers of earlier rows
    of the crowd by which tonight's are known to be torn, or NOBODY.
    """
    leaders, torn = np.arange(len(crowd.rows)), np.zeros(len(crowd.rows), dtype=bool)
    same_kind, rivals = crowd.earlier(crowd.same_kind & drop), crowd.earlier(crowd.rivals)
    least, known = accepted_from(threshold), np.full(len(crowd.groups), NOBODY) if repeats is None else repeats
    place_of = {row: place for place, row in enumerate(crowd.rows[: crowd.num_earlier].tolist())}
    with shingle_sets(parts, crowd.unclear(drop), scratch, shingles) as sets:

        def leader_of(place: int, others: list[int], most: int) -> int:
            likely = most_alike(crowd.sketches, place, np.array(others, dtype=np.int64), least)[:most]
            for other in likely.tolist():
                equal = (crowd.sketches[place] == crowd.sketches[other]).all()
                if equal or sets.alike(int(crowd.rows[place]), int(crowd.rows[other]), threshold):
                    return int(other)
            return place

        for start, stop in pairwise(crowd.bounds.tolist()):
            buckets: dict[int, list[int]] = {}
            keys = bucket_keys(crowd.sketches[start:stop]) if drop else [[]] * (stop - start)
            for place, own in enumerate(keys, start):
                met = set(chain.from_iterable(buckets[key] for key in own if key in buckets))
                before = place - crowd.num_earlier
                if others := [*same_kind[before], *sorted(met)]:
                    leaders[place] = leader_of(place, others, MOST_READ)
                if leaders[place] == place and rivals[before]:
                    leaders[place] = leader_of(place, rivals[before], len(rivals[before]))
                    torn[place] = leaders[place] != place
                if leaders[place] == place and known[before] != NOBODY:
                    leaders[place], torn[place] = place_of[int(known[before])], True
                if leaders[place] == place:
                    enter(buckets, own, place)
    return crowd.rows[leaders[crowd.num_earlier :]].astype(np.uint32), torn[crowd.num_earlier :]


def bucket_keys(sketches: np.ndarray) -> list[list[int]]:
    """Of each sketch a number for each of its bands."""
    bands = np.arange(BANDS, dtype=np.uint64) << np.uint64(32)
    return [row.tolist() for row in np.ascontiguousarray(sketches).view("<u4") + bands]


def enter(buckets: dict[int, list[int]], keys: Sequence[int], place: int) -> None:
    for key in keys:
        if len(bucket := buckets.setdefault(key, [])) < LEADERS_PER_BUCKET:
            bucket.append(place)


def most_alike(sketches: np.ndarray, place: int, others: np.ndarray, least: float) -> np.ndarray:
    """Of some ascending places those with an estimate of at least `least`, the most alike first."""
    estimates = similarity(sketches[others], sketches[place][None])
    likely = np.flatnonzero(estimates >= least)
    return others[likely[np.argsort(-estimates[likely], kind="stable")]]
