"""Is the challenger better? Paired differences per document, a bootstrap over documents, a reason in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from tasks.recipes.stage_configs import PromoteConfig


@dataclass(frozen=True)
class Decision:
    """Whether the champion alias moves, and why."""

    promoted: bool
    reason: str
    difference_bpb: float = math.nan
    """Challenger minus champion; negative is better."""
    upper_bpb: float = math.nan
    """Upper confidence bound of the difference."""


def paired_differences(challenger: pl.DataFrame, champion: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Difference in bits, and bytes, of each document that both models scored; shapes (documents,)."""
    key = ["kind", "row_id"]
    both = challenger.join(champion, on=key, suffix="_champion").filter(pl.col("num_bytes") > 0).sort(key)
    bits = (both["nats"] - both["nats_champion"]).to_numpy() / math.log(2)
    return bits, both["num_bytes"].to_numpy().astype(np.float64)


def bootstrap_upper(bits: np.ndarray, num_bytes: np.ndarray, config: PromoteConfig) -> float:
    """Upper bound of the ratio of sums, from `config.resamples` resamples of documents.

    Documents are the units: tokens of one document are not independent (arXiv 2411.00640).
    """
    generator = np.random.default_rng(config.seed)
    ratios = np.empty(config.resamples)
    for i in range(config.resamples):
        chosen = generator.integers(0, len(bits), len(bits))
        ratios[i] = bits[chosen].sum() / num_bytes[chosen].sum()
    return float(np.quantile(ratios, config.confidence))


def decide(challenger: pl.DataFrame, champion: pl.DataFrame | None, config: PromoteConfig) -> Decision:
    """Promote the first model, and one that is better with the confidence asked for on the same documents."""
    if champion is None:
        return Decision(True, "first model: there was no champion to compare with")
    bits, num_bytes = paired_differences(challenger, champion)
    if not len(bits):
        return Decision(False, "champion and challenger share no validation document, so nothing was compared")
    difference = float(bits.sum() / num_bytes.sum())
    upper = bootstrap_upper(bits, num_bytes, config)
    promoted = upper < -config.min_gain_bpb
    verdict = "better" if promoted else "not shown to be better"
    return Decision(
        promoted,
        f"{verdict}: {difference:+.4f} bits per byte against the champion on {len(bits):,} documents, upper "
        f"{config.confidence:.0%} bound {upper:+.4f}, needed below {0.0 - config.min_gain_bpb:+.4f}",
        difference,
        upper,
    )
