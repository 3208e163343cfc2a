"""The audit slice: held-out documents that no decision ever sees, scored beside those that decide.

Who is promoted for a year by one set of documents fits that set a little better with each promotion (adaptive data
analysis: a holdout that is asked often is no longer one, arXiv 1506.02629; how little it may be, arXiv 1902.10811).
What the promoted models gained on the documents that chose them, less what they gained on these, is how much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from data.hashing import mixed
from tasks.evaluation.budget import YEAR_DAYS
from tasks.evaluation.past import PastDecision

SALT = "audit"
HASH_DIGITS = 16


def is_audited(clusters: pl.Series, share: float) -> pl.Series:
    """Whether each cluster is of the audit slice, by a hash of its name: for all time, and whatever else comes.

    clusters: their names, 32 hexadecimal digits.
    share: of all clusters, in [0, 1).
    """
    if not len(clusters):
        return pl.Series([], dtype=pl.Boolean)
    names = np.array([int(name[:HASH_DIGITS], 16) for name in clusters], dtype=np.uint64)
    return pl.Series(mixed(names, SALT) < np.uint64(int(share * 2**64)))


def apart(documents: pl.DataFrame, share: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The documents that decide, and those of the audit slice. A kind with a single cluster has none to spare."""
    audited = is_audited(documents["cluster"], share)
    spared = documents.with_columns(audited=audited).with_columns(
        audited=pl.col("audited") & ~pl.col("audited").all().over("kind")
    )
    return (
        spared.filter(~pl.col("audited")).drop("audited"),
        spared.filter(pl.col("audited")).drop("audited"),
    )


def audit_figures(audited: pl.DataFrame) -> dict[str, float]:
    """Bits per byte of the audit slice, as the figure `eval/audit_bpb`; none if it has no text."""
    num_bytes = int(audited["num_bytes"].sum())
    return {"eval/audit_bpb": float(audited["nats"].sum()) / math.log(2) / num_bytes} if num_bytes else {}


@dataclass(frozen=True)
class AuditGap:
    """What a year's promotions gained on the documents that chose them, and on those that never did."""

    promotions: int
    gained_bpb: float
    """Bits per byte, the promotions of a year together, on the documents that decide."""
    audit_gained_bpb: float
    """The same on the audit slice."""

    @property
    def gap_bpb(self) -> float:
        """How much of the gain is of the documents that decide alone; above zero, the year overfits them."""
        return self.gained_bpb - self.audit_gained_bpb

    @property
    def sentence(self) -> str:
        """In words."""
        if not self.promotions:
            return "no promotion of the last year has scores on the audit slice"
        times = "the promotion" if self.promotions == 1 else f"{self.promotions} promotions"
        return (
            f"{times} of the last {YEAR_DAYS} days gained {self.gained_bpb:+.4f} bits per byte where the gate looks, "
            f"and {self.audit_gained_bpb:+.4f} on the audit slice, a gap of {self.gap_bpb:+.4f}"
        )


def audit_gap(past: Sequence[PastDecision], now: datetime) -> AuditGap:
    """The gap over the promotions of the 365 days before now; promotions without an audit slice do not count."""
    year_ago = now - timedelta(days=YEAR_DAYS)
    both = [
        (decision.difference_bpb, decision.audit_difference_bpb)
        for decision in past
        if decision.promoted and decision.at > year_ago and decision.audit_difference_bpb is not None
    ]
    return AuditGap(len(both), -math.fsum(ours for ours, _ in both), -math.fsum(audit for _, audit in both))
