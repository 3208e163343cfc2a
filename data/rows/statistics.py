"""Rows in numbers that add up: counts and histograms by source and domain, cheap enough for every night.

Nothing per row is kept: workers measure chunks, and the parts merge in any order to the same whole. The edges of
the histograms are fixed, so that tonight's can be laid over last month's.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import polars as pl

from schemas.domain import DOMAINS

FORMAT = 1
"""Version of the file, edges included: nights of two formats do not compare."""
STATISTICS = "statistics.json"
BINS = {"bytes": 25, "lines": 18, "turns": 10, "script": 15, "white_space": 20, "digits": 20}
"""Bins of each histogram, all counting rows.

`bytes`, `lines` and `turns` have edges at powers of two: bin 0 holds 0, bin k holds 2^(k-1) to 2^k - 1, the last
one everything above. The others hold a twentieth each. `script` is characters per UTF-8 byte and starts at 5/20:
1 for ASCII, 1/2 for Cyrillic or Arabic, 1/3 for Chinese. `white_space` and `digits` are shares of the bytes.
"""
SHARE_BINS = 20
TOTALS = ("rows", "bytes", "characters", "lines", "turns", "white_space", "digits")


def bin_label(name: str, index: int) -> str:
    """What a bin of a histogram of BINS holds, in words."""
    if name in ("bytes", "lines", "turns"):
        low, high = 1 << index >> 1, (1 << index) - 1
        if index == BINS[name] - 1:
            return f"{low:,} {name} and more"
        return f"{low:,} to {high:,} {name}" if low < high else f"{low} {name.removesuffix('s') if low else name}"
    if name == "script":
        return f"{(index + 5) / SHARE_BINS:.2f} to {(index + 6) / SHARE_BINS:.2f} characters per byte"
    return f"{index / SHARE_BINS:.0%} to {(index + 1) / SHARE_BINS:.0%} {name.replace('_', ' ')}"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Totals and histograms of a set of rows; white space and digits are ASCII characters."""

    rows: int = 0
    bytes: int = 0
    characters: int = 0
    lines: int = 0
    turns: int = 0
    white_space: int = 0
    digits: int = 0
    histograms: Mapping[str, tuple[int, ...]] = field(
        default_factory=lambda: {name: (0,) * bins for name, bins in BINS.items()}
    )

    def merge(self, other: Profile) -> Profile:
        """Both sets of rows as one."""
        summed = {name: getattr(self, name) + getattr(other, name) for name in TOTALS}
        pairs = {name: zip(self.histograms[name], other.histograms[name], strict=True) for name in BINS}
        return Profile(**summed, histograms={name: tuple(a + b for a, b in pair) for name, pair in pairs.items()})

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Profile:
        histograms = {name: tuple(stored["histograms"][name]) for name in BINS}
        for name, counts in histograms.items():
            if len(counts) != BINS[name]:
                raise ValueError(f"histogram {name} has {len(counts)} bins, expected {BINS[name]}; measure it again")
        return cls(**{name: stored[name] for name in TOTALS}, histograms=histograms)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Profiles of the rows of a source, by name of the domain; a domain without rows is not listed."""

    domains: Mapping[str, Profile] = field(default_factory=dict)

    def merge(self, other: Statistics) -> Statistics:
        """Both sets of rows as one: associative, commutative, and the empty Statistics changes nothing."""
        names = sorted({*self.domains, *other.domains})
        none = Profile()
        return Statistics(
            domains={name: self.domains.get(name, none).merge(other.domains.get(name, none)) for name in names}
        )

    @property
    def total(self) -> Profile:
        return reduce(Profile.merge, self.domains.values(), Profile())

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Statistics:
        return cls(domains={name: Profile.from_dict(profile) for name, profile in stored["domains"].items()})


def measure(texts: pl.Series, turns: pl.Series | None, domains: pl.Series) -> Statistics:
    """Statistics of one chunk of one source.

    `texts` holds the text of each row, `turns` how many turns it has (None: plain text, 0 turns), `domains` the
    index of its domain in `schemas.domain.DOMAINS`. A null text counts as an empty one.
    """
    if not len(texts):
        return Statistics()
    codes = domains.to_numpy().astype(np.intp)
    if codes.max() >= len(DOMAINS):
        raise ValueError(f"domain {codes.max()} is none of the {len(DOMAINS)} of schemas.domain.DOMAINS")
    counts = counts_of_rows(texts)
    counts["turns"] = np.zeros(len(texts), np.int64) if turns is None else turns.to_numpy()
    totals = {name: np.bincount(codes, values, len(DOMAINS)) for name, values in counts.items()}
    totals["rows"] = np.bincount(codes, minlength=len(DOMAINS))
    tables = {name: histograms_by(codes, bins, BINS[name]) for name, bins in bins_of_rows(counts).items()}
    return Statistics(
        domains={
            DOMAINS[code]: Profile(
                **{name: int(totals[name][code]) for name in TOTALS},
                histograms={name: tuple(tables[name][code].tolist()) for name in BINS},
            )
            for code in sorted(np.unique(codes).tolist(), key=DOMAINS.__getitem__)
        }
    )


def counts_of_rows(texts: pl.Series) -> dict[str, np.ndarray]:
    """Bytes, characters, lines, white space and digits of each row, int64.

    ASCII characters are looked for in the bytes of the whole chunk, where nothing else can look like them
    (UTF-8 is self-synchronising, RFC 3629), and then told apart by the offsets of the rows.
    """
    texts = texts.fill_null("")
    _, offsets, content = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()
    starts = np.frombuffer(offsets, np.int64)[: len(texts) + 1]
    data = np.frombuffer(content or b"", np.uint8)
    return {
        "bytes": np.diff(starts),
        "characters": texts.str.len_chars().to_numpy().astype(np.int64),
        "lines": np.diff(rank(data == ord("\n"), starts)) + 1,
        "white_space": np.diff(rank(data <= ord(" "), starts)),
        "digits": np.diff(rank(data - np.uint8(ord("0")) < 10, starts)),
    }


def rank(mask: np.ndarray, places: np.ndarray) -> np.ndarray:
    """How many entries of a mask are set before each place, int64.

    Population counts of words of 64 bits, summed up once, and of the word's part before each place (Jacobson,
    Space-efficient Static Trees and Graphs, 1989); a sum of bytes, or a list of places, costs several times more.
    """
    bits = np.zeros(len(mask) // 64 * 8 + 8, np.uint8)
    packed = np.packbits(mask, bitorder="little")
    bits[: len(packed)] = packed
    words = bits.view("<u8")
    before = np.cumsum(np.bitwise_count(words), dtype=np.int64) - np.bitwise_count(words)
    word, bit = np.divmod(places, 64)
    below = (np.uint64(1) << bit.astype(np.uint64)) - np.uint64(1)
    return before[word] + np.bitwise_count(words[word] & below)


def bins_of_rows(counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bin of each row in each histogram of BINS."""
    size = np.maximum(counts["bytes"], 1)
    return {
        **{name: np.minimum(np.frexp(counts[name])[1], BINS[name] - 1) for name in ("bytes", "lines", "turns")},
        **{name: np.minimum(SHARE_BINS * counts[name] // size, SHARE_BINS - 1) for name in ("white_space", "digits")},
        "script": np.clip(SHARE_BINS * counts["characters"] // size - 5, 0, BINS["script"] - 1),
    }


def histograms_by(codes: np.ndarray, bins: np.ndarray, num_bins: int) -> np.ndarray:
    """Rows in each bin, [domain, bin]."""
    flat = np.bincount(codes * num_bins + bins, minlength=len(DOMAINS) * num_bins)
    return flat.reshape(len(DOMAINS), num_bins)


@dataclass(frozen=True, kw_only=True)
class Fates:
    """What became of the rows that were read."""

    read: int = 0
    kept: int = 0
    exact_duplicates: int = 0
    near_duplicates: int = 0
    quarantined: int = 0
    blank: int = 0
    """Lines of white space alone."""
    rules: Mapping[str, int] = field(default_factory=dict)
    """Quarantined rows by the rule they broke."""

    @property
    def duplicates(self) -> int:
        return self.exact_duplicates + self.near_duplicates

    @property
    def unaccounted(self) -> int:
        """Rows read without a fate; anything but 0 is an error of the program."""
        return self.read - self.kept - self.duplicates - self.quarantined - self.blank

    def merge(self, other: Fates) -> Fates:
        names = ("read", "kept", "exact_duplicates", "near_duplicates", "quarantined", "blank")
        rules = Counter(self.rules)
        rules.update(other.rules)
        return Fates(
            **{name: getattr(self, name) + getattr(other, name) for name in names}, rules=dict(sorted(rules.items()))
        )


@dataclass(frozen=True, kw_only=True)
class TokenCount:
    """Tokens and the UTF-8 bytes of the text they stand for."""

    tokens: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Validation documents of a slice, and how many of them share text with the train side."""

    documents: int
    overlapping: int

    @property
    def share(self) -> float:
        return self.overlapping / max(1, self.documents)


@dataclass(frozen=True, kw_only=True)
class NightStatistics:
    """Everything countable about the data of a night; what the stages have not yet filled in is None."""

    sources: Mapping[str, Statistics] = field(default_factory=dict)
    """Rows that passed the rules, duplicates included, by source."""
    fates: Mapping[str, Fates] = field(default_factory=dict)
    """All rows, by source."""
    tokens: Mapping[str, Mapping[str, TokenCount]] | None = None
    """By source, then domain."""
    vocabulary_coverage: Mapping[str, float] | None = None
    """Share of the vocabulary that the train side uses, by domain; `all` is all of them together."""
    slots_filled: Mapping[str, float] | None = None
    """Share of packed slots that hold a token, by table."""
    dispersion: Mapping[str, float] | None = None
    """Variance of a domain's share over batches in shuffled order, over that of a random order, by domain."""
    contamination: Mapping[str, Overlap] | None = None
    """By slice of the validation side."""

    @property
    def names(self) -> list[str]:
        """Sources that gave rows of any fate."""
        return sorted({*self.sources, *self.fates})

    @property
    def by_domain(self) -> Statistics:
        """The same over all sources."""
        return merged(self.sources.values())

    @property
    def fate(self) -> Fates:
        """All rows of all sources."""
        return reduce(Fates.merge, self.fates.values(), Fates())

    def tokens_by_domain(self) -> dict[str, TokenCount]:
        """Over all sources; empty before the tokens stage."""
        summed: dict[str, TokenCount] = {}
        for by_domain in (self.tokens or {}).values():
            for name, count in by_domain.items():
                before = summed.get(name, TokenCount(tokens=0, bytes=0))
                summed[name] = TokenCount(tokens=before.tokens + count.tokens, bytes=before.bytes + count.bytes)
        return summed

    def as_dict(self) -> dict[str, Any]:
        """As it is stored in STATISTICS."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> NightStatistics:
        """Raises ValueError for a file of another format."""
        if stored.get("format") != FORMAT:
            raise ValueError(
                f"statistics of format {stored.get('format')!r}, this code reads {FORMAT}; validate that data again"
            )
        tokens, overlaps = stored["tokens"], stored["contamination"]
        return cls(
            sources={name: Statistics.from_dict(value) for name, value in stored["sources"].items()},
            fates={name: Fates(**value) for name, value in stored["fates"].items()},
            tokens=tokens and {s: {d: TokenCount(**c) for d, c in by.items()} for s, by in tokens.items()},
            contamination=overlaps and {name: Overlap(**value) for name, value in overlaps.items()},
            **{name: stored[name] for name in ("vocabulary_coverage", "slots_filled", "dispersion")},
        )


def merged(parts: Iterable[Statistics]) -> Statistics:
    """All parts as one, in any order."""
    return reduce(Statistics.merge, parts, Statistics())
