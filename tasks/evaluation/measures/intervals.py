"""How far a figure of one model could be elsewhere by the luck of the documents it is on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import binomtest

CONFIDENCE = 0.95
"""Of the two-sided intervals that people are shown. Nothing is decided by them."""
RESAMPLES = 1_000
DRAWS_PER_CHUNK = 1 << 18
"""Clusters drawn at a time: 2 MiB."""
OVERALL, SHARE = "all", "share"


def bpb_intervals(documents: pl.DataFrame, seed: int = 1) -> list[dict[str, Any]]:
    """Bits per byte with an interval: overall, by kind, domain, source, and by kind and domain.

    Each entry has `by`, `name`, `value`, `lower`, `upper`, `documents`, `clusters`, `num_bytes`. Clusters of near
    documents are drawn whole where the table has a column `cluster`, else documents. A slice of one cluster alone has
    no interval: its bounds are None.

    documents: `kind`, `domain`, `source`, `nats`, `num_bytes` of each; those without bytes are left out.
    """
    of = documents.filter(pl.col("num_bytes") > 0)
    if "cluster" not in of.columns:
        of = of.with_columns(cluster=pl.col("row_id"))
    of = of.with_columns(pl.lit(OVERALL).alias(OVERALL), pl.concat_str("kind", pl.lit("."), "domain").alias("slice"))
    entries = []
    for by in (OVERALL, "kind", "domain", "source", "slice"):
        for (name,), part in sorted(of.group_by(by)):
            clusters = part.group_by("cluster").agg(pl.col("nats", "num_bytes").sum()).sort("cluster")
            bits, num_bytes = clusters["nats"].to_numpy() / math.log(2), clusters["num_bytes"].to_numpy()
            lower, upper = ratio_interval(bits, num_bytes, seed)
            entries.append({
                "by": by, "name": name, "value": float(bits.sum() / num_bytes.sum()), "lower": lower, "upper": upper,
                "documents": len(part), "clusters": len(clusters), "num_bytes": int(num_bytes.sum()),
            })  # fmt: skip
    return entries


def ratio_interval(above: np.ndarray, below: np.ndarray, seed: int) -> tuple[float | None, float | None]:
    """Bounds of sum(above) / sum(below) over units drawn with replacement: the percentile bootstrap (Efron 1979).

    above, below: of each unit, shape (units,); `below` is above 0. One unit alone has no bounds.
    """
    units = len(above)
    if units < 2:
        return None, None
    generator, chunk = np.random.default_rng(seed), max(1, DRAWS_PER_CHUNK // units)
    values, sums = np.stack([above, below], axis=1).astype(np.float64), np.empty((RESAMPLES, 2))
    for first in range(0, RESAMPLES, chunk):
        resamples = min(chunk, RESAMPLES - first)
        drawn = generator.integers(0, units, (resamples, units)) + units * np.arange(resamples)[:, None]
        times = np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units)
        sums[first : first + resamples] = times @ values
    tail = (1 - CONFIDENCE) / 2
    lower, upper = np.quantile(sums[:, 0] / sums[:, 1], [tail, 1 - tail])
    return float(lower), float(upper)


def share_interval(name: str, share: float, trials: int) -> dict[str, Any]:
    """A share of independent trials, at least one, with its score interval (Wilson 1927), as an entry beside those.

    share: of successes; one that counts ties in part is rounded to a whole number of them for the bounds.
    """
    bounds = binomtest(round(share * trials), trials).proportion_ci(CONFIDENCE, method="wilson")
    return {
        "by": SHARE, "name": name, "value": share, "lower": float(bounds.low), "upper": float(bounds.high),
        "trials": trials,
    }  # fmt: skip
