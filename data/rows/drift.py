"""How far tonight's data lies from the data the champion was trained on.

The measure is the population stability index (Siddiqi, Credit Risk Scorecards, Wiley 2006), the symmetric
Kullback-Leibler divergence of two histograms, sum((p - q) ln(p / q)). Its usual reading: below 0.1 stable, from
0.1 shifted, above 0.25 different.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.rows.statistics import NightStatistics, Profile, bin_label

SHIFTED, DIFFERENT = 0.1, 0.25
PSEUDO_ROWS_PER_BIN = 10
HISTOGRAMS = {"row_length": "bytes", "script": "script", "lines": "lines", "turns": "turns",
              "white_space": "white_space", "digits": "digits"}  # fmt: skip
"""Features that are a histogram of the rows that passed the rules."""
FEATURES = ("source_mix", "domain_mix", *HISTOGRAMS, "duplicate_share", "quarantined_share")
"""What is compared. The mixes are of the bytes kept, the last two of the rows read."""


def shares_of(sizes: Sequence[float]) -> np.ndarray:
    total = sum(sizes)
    return np.asarray(sizes, np.float64) / (total or 1)


def contributions(tonight: Sequence[float], reference: Sequence[float], rows: tuple[int, int]) -> np.ndarray:
    """Parts of the index, one a bin, each at least 0; their sum is the index.

    `tonight` and `reference` are sizes of the same bins, in any unit; `rows` says how many observations each side
    stands for. A side that holds nothing cannot be compared: every part is 0.

    The smoothing is additive: both sides get 10 pseudo-rows for each bin in use, laid out like the mean of both,
    beside as many rows of their own as the smaller side has. So no side's size counts, no empty bin makes the
    logarithm infinite, and one odd row is no alarm. (Pseudo-rows laid out evenly would set a small sample apart
    from a large one of the same make.) For two samples of one population the plain index grows to about
    (bins - 1) (1/n + 1/m) (Yurdakul, Statistical Properties of Population Stability Index, 2018); smoothed like
    this it is about 0.05 at the most on average, whatever their sizes.
    """
    p, q = shares_of(tonight), shares_of(reference)
    used = np.flatnonzero(p + q)
    parts = np.zeros(len(p))
    if p.any() and q.any():
        own = min(rows) / max(1, min(rows) + PSEUDO_ROWS_PER_BIN * len(used))
        mean = (p[used] + q[used]) / 2
        p, q = own * p[used] + (1 - own) * mean, own * q[used] + (1 - own) * mean
        parts[used] = (p - q) * (np.log(p) - np.log(q))
    return parts


@dataclass(frozen=True, kw_only=True)
class FeatureDrift:
    """One feature, and the bin that moved most."""

    name: str
    psi: float
    bin: str
    tonight: float
    """Share of that bin, not smoothed."""
    reference: float

    @property
    def reading(self) -> str:
        if self.psi > DIFFERENT:
            return "different"
        return "shifted" if self.psi >= SHIFTED else "stable"


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Tonight's data against the champion's, in the order of FEATURES."""

    features: tuple[FeatureDrift, ...]
    new_sources: tuple[str, ...] = ()
    """Sources with kept rows tonight that the champion saw none of."""
    vanished_sources: tuple[str, ...] = ()

    @property
    def worst(self) -> FeatureDrift:
        return max(self.features, key=lambda feature: feature.psi)

    def over(self, limit: float) -> list[str]:
        """A message for each feature above the limit, worst first."""
        return [
            f"{feature.name}: population stability index {feature.psi:.3f}, the limit is {limit:g}; most of it from "
            f"{feature.bin}: {feature.tonight:.1%} of tonight's data, {feature.reference:.1%} of the champion's"
            for feature in sorted(self.features, key=lambda feature: -feature.psi)
            if feature.psi > limit
        ]

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Drift:
        return cls(
            features=tuple(FeatureDrift(**feature) for feature in stored["features"]),
            new_sources=tuple(stored["new_sources"]),
            vanished_sources=tuple(stored["vanished_sources"]),
        )


def compared(name: str, tonight: Mapping[str, float], reference: Mapping[str, float], rows: tuple[int, int]
             ) -> FeatureDrift:  # fmt: skip
    """One feature; bins go by name, and one that a side lacks is empty there."""
    names = sorted({*tonight, *reference}) or ["nothing"]
    ours, theirs = ([float(side.get(bin_name, 0)) for bin_name in names] for side in (tonight, reference))
    parts = contributions(ours, theirs, rows)
    most = int(parts.argmax())
    return FeatureDrift(
        name=name, psi=float(parts.sum()), bin=names[most],
        tonight=float(shares_of(ours)[most]), reference=float(shares_of(theirs)[most]),
    )  # fmt: skip


def bins_of(night: NightStatistics) -> dict[str, tuple[dict[str, float], int]]:
    """The bins of each feature by name, and how many rows they stand for.

    A mix by bytes stands for its rows: bytes come a row at a time.
    """
    by_domain, fate = night.by_domain, night.fate
    total: Profile = by_domain.total
    mixes: dict[str, dict[str, float]] = {
        "source_mix": {name: statistics.total.bytes for name, statistics in night.sources.items()},
        "domain_mix": {name: profile.bytes for name, profile in by_domain.domains.items()},
    }
    for feature, name in HISTOGRAMS.items():
        mixes[feature] = {bin_label(name, index): count for index, count in enumerate(total.histograms[name])}
    shares: dict[str, dict[str, float]] = {
        "duplicate_share": {"duplicates": fate.duplicates, "other rows": fate.read - fate.duplicates},
        "quarantined_share": {"quarantined": fate.quarantined, "other rows": fate.read - fate.blank - fate.quarantined},
    }
    return {name: (bins, total.rows) for name, bins in mixes.items()} | {
        name: (bins, fate.read) for name, bins in shares.items()
    }


def kept_sources(night: NightStatistics) -> set[str]:
    return {name for name, statistics in night.sources.items() if statistics.total.rows}


def drift(tonight: NightStatistics, reference: NightStatistics) -> Drift:
    """Compare tonight's data with that of the champion, feature by feature."""
    ours, theirs = bins_of(tonight), bins_of(reference)
    here, there = kept_sources(tonight), kept_sources(reference)
    return Drift(
        features=tuple(
            compared(name, ours[name][0], theirs[name][0], (ours[name][1], theirs[name][1])) for name in FEATURES
        ),
        new_sources=tuple(sorted(here - there)),
        vanished_sources=tuple(sorted(there - here)),
    )
