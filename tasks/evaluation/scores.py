"""A model and its scores: overall, per kind, source and slice, and how far they could be elsewhere by luck."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from scipy.stats import binomtest
from tokenizers import Tokenizer

from data.tokens.contamination import CONTAMINATED_FROM
from model.tokens.tokenizer import load_tokenizer
from tasks.evaluation.resampling import OVERALL, estimates

if TYPE_CHECKING:
    from model.network.transformer import Transformer

CONFIDENCE = 0.95
"""Of the two-sided intervals that people are shown. Nothing is decided by them."""
RESAMPLES, SEED = 1_000, 1
ALL, SHARE = "all", "share"


def load_model(folder: Path, tokens: Path) -> tuple[Transformer, Tokenizer]:
    """The model of a training stage's folder with the tokenizer of `tokens`, or an exported folder with its own."""
    from model.exchange.hugging_face import import_hugging_face
    from tasks.planning.machine import best_device
    from tasks.training.trained import load_trained

    exported = is_exported(folder)
    model = import_hugging_face(folder) if exported else load_trained(folder)
    return model.to(best_device()), load_tokenizer(folder if exported else tokens)


def headline_scores(documents: pl.DataFrame) -> dict[str, float]:
    """Scores overall, per kind, source and slice, and of the documents that the train side does not repeat."""
    from tasks.evaluation.measures.metrics import language_model_metrics

    def of(part: pl.DataFrame) -> dict[str, float]:
        return language_model_metrics(part.select("nats", "tokens", "num_bytes").to_dict(as_series=False))

    overall = of(documents)
    scores = {"val/loss": overall["loss"], "val/perplexity": overall["perplexity"], "val/bpb": overall["bpb"]}
    slices = pl.concat_str("kind", pl.lit("."), "domain")
    for key in (pl.col("kind"), pl.col("source"), slices):
        for (name,), part in sorted(documents.group_by(key.alias("slice"))):
            if part["num_bytes"].sum():
                scores[f"val/bpb.{name}"] = of(part)["bpb"]
    clean = documents.filter(pl.col("contaminated_share") < CONTAMINATED_FROM)
    if clean["num_bytes"].sum():
        scores["val/bpb.clean"] = of(clean)["bpb"]
    return scores


def bpb_intervals(documents: pl.DataFrame) -> list[dict[str, Any]]:
    """Bits per byte with an interval: overall, by kind, domain, source, and by kind and domain.

    Each entry has `by`, `name`, `value`, `lower`, `upper`, `documents`, `clusters`, `num_bytes`. A slice of one cluster
    alone has no interval: its bounds are None.

    documents: table of the evaluate stage; those without bytes are left out.
    """
    of = documents.filter(pl.col("num_bytes") > 0).with_columns(
        bits=pl.col("nats") / math.log(2), slice=pl.concat_str("kind", pl.lit("."), "domain"), all=pl.lit(ALL)
    )
    entries = []
    for by in (ALL, "kind", "domain", "source", "slice"):
        table = of.with_columns(domain=pl.col(by))
        parts = {str(name): part for (name,), part in sorted(table.group_by("domain"))}
        for found in estimates(table, list(parts), 1.0, RESAMPLES, SEED):
            if found.name == OVERALL:
                continue
            part, apart, tail = parts[found.name], found.clusters > 1, (1 - CONFIDENCE) / 2
            entries.append({
                "by": by, "name": found.name, "value": found.value, "lower": found.lower(tail) if apart else None,
                "upper": found.upper(tail) if apart else None, "documents": len(part), "clusters": found.clusters,
                "num_bytes": int(part["num_bytes"].sum()),
            })  # fmt: skip
    return entries


def share_interval(name: str, share: float, trials: int) -> dict[str, Any]:
    """A share of independent trials, at least one, with its score interval (Wilson 1927), as an entry beside those.

    share: of successes; one that counts ties in part is rounded to a whole number of them for the bounds.
    """
    bounds = binomtest(round(share * trials), trials).proportion_ci(CONFIDENCE, method="wilson")
    return {
        "by": SHARE, "name": name, "value": share, "lower": float(bounds.low), "upper": float(bounds.high),
        "trials": trials,
    }  # fmt: skip


def is_exported(path: Path) -> bool:
    return (path / "tokenizer.json").exists()
