"""Is the challenger better? Paired differences per document, a bootstrap over documents, a reason in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from tasks.evaluation.enough import why_too_few
from tasks.pages.text import plural
from tasks.recipes.stage_configs import PromoteConfig

DRAWS_PER_CHUNK = 1 << 16
"""Documents drawn at a time in the bootstrap: 1 MiB, which stays in the processor's cache."""


@dataclass(frozen=True)
class Decision:
    """Whether the champion alias moves, and why."""

    promoted: bool
    reason: str
    difference_bpb: float = math.nan
    """Challenger minus champion; negative is better."""
    upper_bpb: float = math.nan
    """Upper confidence bound of the difference."""
    waits: bool = False
    """Whether it is for a person to decide."""


def paired_differences(challenger: pl.DataFrame, champion: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Challenger minus champion in bits, and bytes, of each document that both models scored; shapes (documents,)."""
    key = ["kind", "row_id"]
    paired = challenger.join(champion, on=key, suffix="_champion").filter(pl.col("num_bytes") > 0).sort(key)
    bits = (paired["nats"] - paired["nats_champion"]).to_numpy() / math.log(2)
    return bits, paired["num_bytes"].to_numpy().astype(np.float64)


def bootstrap_upper(
    bits: np.ndarray, num_bytes: np.ndarray, config: PromoteConfig, draws_per_chunk: int = DRAWS_PER_CHUNK
) -> float:
    """Upper bound of sum(bits) / sum(num_bytes), from `config.resamples` resamples of documents.

    Documents are the units: tokens of one document are not independent (arXiv 2411.00640). A resample is as many
    integers as there are documents, drawn with replacement from NumPy's default generator, seeded with `config.seed`;
    its draws follow those of the resample before, so the bound does not depend on `draws_per_chunk`.

    bits: difference in bits of each document, shape (documents,).
    num_bytes: bytes of each document, above 0, shape (documents,).
    config: confidence of the bound, number of resamples, seed.
    draws_per_chunk: documents drawn at a time, at least one resample; each takes 16 bytes of memory.
    """
    generator = np.random.default_rng(config.seed)
    num_documents = len(bits)
    chunk = max(1, draws_per_chunk // num_documents)
    ratios = np.empty(config.resamples)
    for first in range(0, config.resamples, chunk):
        last = min(first + chunk, config.resamples)
        drawn = generator.integers(0, num_documents, (last - first, num_documents))
        ratios[first:last] = bits[drawn].sum(axis=1) / num_bytes[drawn].sum(axis=1)
    return float(np.quantile(ratios, config.confidence))


def decide(challenger: pl.DataFrame, champion: pl.DataFrame | None, config: PromoteConfig) -> Decision:
    """Promote the first model, and one that is better on the same documents with the recipe's confidence.

    Neither on fewer documents than the recipe asks for, nor unless its mode is `auto`.

    challenger: score of each validation document: `kind`, `row_id`, `nats`, `num_bytes`.
    champion: the same of the model in use; None if there is none.
    config: the least documents, the confidence and the gain that are needed, and who promotes.
    """
    if champion is None:
        sizes = challenger["num_bytes"].to_numpy()
        counted = int((sizes > 0).sum()), int(sizes.sum())
        too_few = why_too_few(*counted, "there was no champion to compare with, and", config)
        first = Decision(True, "first model: there was no champion to compare with")
        return Decision(False, too_few, waits=True) if too_few else as_asked(first, config)
    bits, num_bytes = paired_differences(challenger, champion)
    if not len(bits):
        reason = "champion and challenger share no validation document, so nothing was compared"
        return Decision(False, reason, waits=True)
    difference = float(bits.sum() / num_bytes.sum())
    upper = bootstrap_upper(bits, num_bytes, config)
    counted, found = (len(bits), int(num_bytes.sum())), f"{difference:+.4f} bits per byte against the champion, but"
    if too_few := why_too_few(*counted, found, config):
        return Decision(False, too_few, difference, upper, waits=True)
    promoted = upper < -config.min_gain_bpb
    verdict = "better" if promoted else "not shown to be better"
    alone = sum(int((scored["num_bytes"] > 0).sum()) for scored in (challenger, champion)) - 2 * len(bits)
    left_out = f"; {plural(alone, 'score')} of documents that only one of them has count for nothing" if alone else ""
    compared = Decision(
        promoted,
        f"{verdict}: {difference:+.4f} bits per byte against the champion on {plural(len(bits), 'document')}, upper "
        f"{config.confidence:.0%} bound {upper:+.4f}, needed below {0.0 - config.min_gain_bpb:+.4f}{left_out}",
        difference,
        upper,
    )
    return as_asked(compared, config)


def as_asked(found: Decision, config: PromoteConfig) -> Decision:
    """The same decision, held back if the recipe does not promote by itself."""
    if not found.promoted or config.mode == "auto":
        return found
    why = "a person promotes it (promote.mode is ask, as with all overrides that do not name the mode)"
    if config.mode == "never":
        why = "promote.mode is never"
    return replace(found, promoted=False, reason=f"{found.reason}; {why}", waits=config.mode == "ask")
