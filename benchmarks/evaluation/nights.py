"""Nights that never were: validation sides drawn from real scores, with a known truth, judged by the gate itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy.special import ndtri

from tasks.evaluation.budget import HELD_SHARE, YEAR_DAYS, Allowance
from tasks.evaluation.gate import Evidence, compared
from tasks.evaluation.resampling import OVERALL, POWER, clusters_of, paired
from tasks.evaluation.verdict import Decision
from tasks.recipes.stage_configs import PromoteConfig

FEW, SCREEN = 100, 0.95
"""Resamples that sort nights out, and the share of Student's bound from which a night is decided with all."""
Effect = Callable[[pl.DataFrame], pl.DataFrame]
"""What a known truth does to the differences of a night."""


def effect(better_share: float, worse_in: str = OVERALL, worse_share: float = 0.0) -> Effect:
    """A challenger that needs a share fewer bits everywhere, and in one domain a share more."""
    harmed = pl.lit(False) if worse_in == OVERALL else pl.col("domain") == worse_in
    share = pl.when(harmed).then(worse_share).otherwise(-better_share)
    return lambda table: table.with_columns(bits=pl.col("bits") + share * pl.col("champion_bits"))


@dataclass(frozen=True)
class Pool:
    """Documents that two models of different seeds scored, made equal: no difference in any domain."""

    table: pl.DataFrame
    members: Mapping[str, list[np.ndarray]]
    """Of each source the row numbers of its clusters."""

    @classmethod
    def of(cls, ours: pl.DataFrame, other: pl.DataFrame, config: PromoteConfig, share: float) -> Pool:
        """Both models' tables; the mean difference of each domain is taken out.

        It is weighed as the gate weighs a night that has this share of the clusters: what is 2 % of its bytes is that
        share of 2 % of all.
        """
        table = paired(ours, other)
        weighed = clusters_of(table, config.max_cluster_share * share)
        means = weighed.group_by("domain").agg(mean=pl.col("bits").sum() / pl.col("num_bytes").sum())
        table = table.join(means, on="domain", maintain_order="left").with_columns(
            bits=pl.col("bits") - pl.col("mean") * pl.col("num_bytes")
        )
        rows = table.with_row_index().group_by("cluster", maintain_order=True)
        members: dict[str, list[np.ndarray]] = {}
        for source, index in rows.agg(pl.col("source").first(), pl.col("index")).select("source", "index").iter_rows():
            members.setdefault(source, []).append(np.array(index))
        return cls(table.drop("mean"), members)

    def night(self, share: float, sources: frozenset[str], generator: np.random.Generator) -> pl.DataFrame:
        """A validation side with this share of the pool's clusters of each source, drawn with replacement."""
        chosen: list[np.ndarray] = []
        for source in sorted(sources & self.members.keys()):
            clusters = self.members[source]
            wanted = max(1, round(share * len(clusters)))
            chosen += [clusters[number] for number in generator.integers(0, len(clusters), wanted)]
        names = np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
        drawn = self.table[np.concatenate(chosen)]
        return drawn.with_columns(cluster=pl.Series(names).cast(pl.String))


def nights(
    pool: Pool, truth: Effect, share: float, sources: frozenset[str], config: PromoteConfig, number: int, seed: int
) -> Iterator[Decision]:
    """What the gate decides on each night, at the error rate that comparisons of every night settle at.

    A bound is the wider of two, and Student's costs no resamples: with a few of them it is seen that a night shows
    nothing, and only one that could is decided with all.
    """
    alpha = config.false_promotions_a_year * (1 - HELD_SHARE) / YEAR_DAYS
    evidence = Evidence(Allowance(alpha, 0.0, config.false_promotions_a_year), {}, {})
    generator, few = np.random.default_rng(seed), replace(config, resamples=FEW)
    student = float(-ndtri(evidence.allowance.level))
    for _ in range(number):
        table = truth(pool.night(share, sources, generator))
        decision = compared(table, table, 0, few, evidence)
        error = decision.minimum_detectable_bpb / (student + float(ndtri(POWER)))
        shows = abs(decision.difference_bpb) > SCREEN * student * error
        yield compared(table, table, 0, config, evidence) if shows else decision
