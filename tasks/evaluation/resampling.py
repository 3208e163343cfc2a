"""Bits per byte of a model, or the difference of two on the same documents, and what it could have been elsewhere: a
bootstrap of clusters.

Documents of one cluster of near duplicates are one observation (clustered errors, arXiv 2411.00640), and each source
is a stratum, so that no source has more clusters in one resample than in another. Of the n clusters of a stratum a
resample draws n - 1 with replacement and counts each n / (n - 1) times, which makes the variance of a sum unbiased
however few they are (Rao and Wu 1988, doi 10.1080/01621459.1988.10478591). A cluster whose bytes are more than a share
of all counts for that share alone, as weights of a survey are trimmed (Potter 1990): with one text that is a tenth of
the bytes, a difference of nothing is taken for one several times as often as its error rate says (`docs/log.md`).
Sums are formed of whole numbers, so that they are exact in whatever order a machine adds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.special import ndtri, stdtrit

from tasks.recipes.stage_configs import PromoteConfig

OVERALL = ""
"""The group of all documents."""
SMALL_STRATUM_CLUSTERS = 20
"""Sources with fewer clusters are one stratum together."""
LEAST_CLUSTERS_A_CAP = 3
"""A cap may hold a cluster down to the share of this many among equals, not further."""
UNIT = 1 << 20
"""Bits and bytes are counted in parts of this size, as whole numbers."""
POWER = 0.8
DRAWS_PER_CHUNK = 1 << 18
"""Clusters drawn at a time: 2 MiB of numbers, 2 MiB of counts."""


def paired(challenger: pl.DataFrame, champion: pl.DataFrame) -> pl.DataFrame:
    """The documents that both models scored, in an order of their own.

    challenger, champion: tables of the evaluate stage.
    Returns kind, row_id, source, cluster, `domain` (with its kind, `chat/chat`), num_bytes, contaminated_share, and in
    bits: `champion_bits` and the difference `bits`, challenger minus champion.
    """
    key = ["kind", "row_id"]
    nats = champion.select(*key, champion_nats="nats")
    both = challenger.join(nats, on=key).filter(pl.col("num_bytes") > 0).sort(key)
    return both.select(
        *key, "source", "cluster", "num_bytes", "contaminated_share",
        domain=pl.concat_str("kind", pl.lit("/"), "domain"),
        champion_bits=pl.col("champion_nats") / math.log(2),
        bits=(pl.col("nats") - pl.col("champion_nats")) / math.log(2),
    )  # fmt: skip


def cap_bytes(sizes: np.ndarray, max_share: float) -> float:
    """The bytes that a cluster counts for at most, so that none is more than `max_share` of what all count for.

    sizes: bytes of each cluster, above 0, shape (clusters,).
    """
    share = max(max_share, LEAST_CLUSTERS_A_CAP / len(sizes))
    ordered = np.sort(sizes)[::-1].astype(np.float64)
    rest = float(ordered.sum())
    for capped, size in enumerate(ordered.tolist()):
        cap = share * rest / (1 - share * capped) if share * capped < 1 else size
        if size <= cap:
            return max(cap, size)
        rest -= size
    return float(ordered[0])


def clusters_of(table: pl.DataFrame, max_share: float) -> pl.DataFrame:
    """One row a cluster and domain: cluster, domain, `stratum`, weighed bits and bytes as whole UNITs.

    A cluster that has documents of several sources is of the one that has most of its bytes.
    """
    sizes = table.group_by("cluster").agg(pl.col("num_bytes").sum().alias("size"))
    cap = cap_bytes(sizes["size"].to_numpy(), max_share)
    weights = sizes.with_columns(weight=pl.min_horizontal(1.0, cap / pl.col("size")))
    by_source = table.group_by("cluster", "source").agg(pl.col("num_bytes").sum())
    strata = by_source.sort("num_bytes", "source", descending=[True, False]).unique("cluster", keep="first")
    sizeable = strata.group_by("source").len().filter(pl.col("len") >= SMALL_STRATUM_CLUSTERS)["source"]
    stratum = pl.when(pl.col("source").is_in(sizeable.implode())).then("source").otherwise(pl.lit("")).alias("stratum")
    return (
        table.join(weights, on="cluster")
        .with_columns((pl.col(name) * pl.col("weight") * UNIT).round() for name in ("bits", "num_bytes"))
        .group_by("cluster", "domain").agg(pl.col("bits", "num_bytes").sum())
        .join(strata.select("cluster", stratum), on="cluster").sort("stratum", "cluster", "domain")
    )  # fmt: skip


@dataclass(frozen=True)
class Stratum:
    """Clusters that are drawn among themselves."""

    sums: np.ndarray
    """Bits, then bytes, of each group, in whole UNITs; shape (clusters, 2 * groups)."""

    @property
    def factor(self) -> float:
        """How often a drawn cluster counts."""
        return len(self.sums) / self.drawn

    @property
    def drawn(self) -> int:
        """How many clusters a resample draws."""
        return max(1, len(self.sums) - 1)


@dataclass(frozen=True)
class Estimate:
    """Bits per byte of a group of documents: a model's, or the difference of two, of which a negative one is better."""

    name: str
    """`OVERALL` or a domain."""
    value: float
    error: float
    """Its standard error over clusters, to first order (delta method)."""
    clusters: int
    freedom: int
    """Degrees of freedom of the error: clusters less strata, one at least."""
    drawn: np.ndarray
    """What it was in each resample, shape (resamples,)."""

    def upper(self, alpha: float) -> float:
        """What the true value is above with a probability of `alpha` at most: the wider of the bootstrap's percentile
        and Student's bound, which is there for an `alpha` that resamples are too few for, too."""
        student = self.value - float(stdtrit(self.freedom, alpha)) * self.error
        return max(float(np.quantile(self.drawn, 1 - alpha)), student)

    def lower(self, alpha: float) -> float:
        """What the true value is below with a probability of `alpha` at most."""
        student = self.value + float(stdtrit(self.freedom, alpha)) * self.error
        return min(float(np.quantile(self.drawn, alpha)), student)

    def detectable(self, alpha: float) -> float:
        """The gain in bits per byte that is shown at `alpha` with a probability of `POWER`."""
        return (float(ndtri(POWER)) - float(stdtrit(self.freedom, alpha))) * self.error


def strata_of(clusters: pl.DataFrame, groups: Sequence[str]) -> list[Stratum]:
    """The strata; one of a single cluster joins the largest, as a variance needs two."""
    names, index = np.unique(clusters["cluster"].to_numpy(), return_inverse=True)
    sums = np.zeros((len(names), 2 * len(groups)))
    values = clusters.select("bits", "num_bytes").to_numpy()
    for number, group in enumerate(groups):
        chosen = (clusters["domain"] == group).to_numpy() if group != OVERALL else np.ones(len(clusters), dtype=bool)
        np.add.at(sums[:, 2 * number : 2 * number + 2], index[chosen], values[chosen])
    of = np.empty(len(names), dtype=object)
    of[index] = clusters["stratum"].to_list()
    parts = sorted((sums[of == stratum] for stratum in sorted(set(of))), key=len, reverse=True)
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts = [np.concatenate([parts[0], parts[-1]]), *parts[1:-1]]
    return [Stratum(part) for part in parts]


def draws(stratum: Stratum, generator: np.random.Generator, resamples: int) -> Iterator[np.ndarray]:
    """Sums of each resample of a stratum, a chunk of resamples at a time, (resamples of the chunk, 2 * groups)."""
    clusters = len(stratum.sums)
    chunk = max(1, DRAWS_PER_CHUNK // clusters)
    for first in range(0, resamples, chunk):
        number = min(chunk, resamples - first)
        drawn = generator.integers(0, clusters, (number, stratum.drawn))
        drawn += np.arange(number)[:, None] * clusters
        counts = np.bincount(drawn.ravel(), minlength=number * clusters).reshape(number, clusters)
        yield counts.astype(np.float64) @ stratum.sums


def difference(table: pl.DataFrame, config: PromoteConfig) -> float:
    """The difference over all documents that `differences` finds, without what it could have been."""
    clusters = clusters_of(table, config.max_cluster_share)
    return float(clusters["bits"].sum()) / float(clusters["num_bytes"].sum())


def differences(table: pl.DataFrame, domains: Sequence[str], config: PromoteConfig) -> list[Estimate]:
    """The difference over all documents, then in each of `domains`, see `estimates`.

    table: documents that both models scored, see `paired`.
    config: number of resamples, seed, and the share that a cluster may count for.
    """
    return estimates(table, domains, config.max_cluster_share, config.resamples, config.seed)


def estimates(
    table: pl.DataFrame, domains: Sequence[str], max_share: float, resamples: int, seed: int
) -> list[Estimate]:  # fmt: skip
    """Bits per byte over all documents, then in each of `domains`, all of the same resamples.

    The resamples are those of NumPy's default generator: the same bits on every machine for a seed.

    table: cluster, source, domain, bits and num_bytes of each document, num_bytes above 0; the error is infinite if all
        are of one cluster.
    max_share: of the bytes, that a cluster counts for at most; 1 weighs none down.
    """
    groups = [OVERALL, *domains]
    strata = strata_of(clusters_of(table, max_share), groups)
    generator = np.random.default_rng(seed)
    drawn = np.zeros((resamples, 2 * len(groups)))
    for stratum in strata:
        drawn += stratum.factor * np.concatenate(list(draws(stratum, generator, resamples)))
    totals = sum(stratum.sums.sum(axis=0) for stratum in strata)
    found = []
    for number, name in enumerate(groups):
        bits, num_bytes = 2 * number, 2 * number + 1
        value = float(totals[bits] / totals[num_bytes])
        there = drawn[:, num_bytes] > 0
        ratios = np.divide(drawn[:, bits], drawn[:, num_bytes], out=np.full(len(drawn), value), where=there)
        holders = [stratum.sums[:, [bits, num_bytes]] for stratum in strata if stratum.sums[:, num_bytes].any()]
        clusters = sum(int((sums[:, 1] > 0).sum()) for sums in holders)
        error = math.sqrt(sum(variance(sums, value) for sums in holders)) / float(totals[num_bytes])
        found.append(Estimate(name, value, error, clusters, max(1, clusters - len(holders)), ratios))
    return found


def variance(sums: np.ndarray, value: float) -> float:
    """Of a stratum's sum of bits - value * bytes; `sums` has both of each cluster, shape (clusters, 2)."""
    if len(sums) < 2:
        return math.inf
    residuals = (sums[:, 0] - value * sums[:, 1]).tolist()
    mean = math.fsum(residuals) / len(residuals)
    return math.fsum((r - mean) ** 2 for r in residuals) * len(residuals) / (len(residuals) - 1)
