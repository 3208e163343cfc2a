"""A model and its scores: overall, per kind, source and slice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from tokenizers import Tokenizer

from data.tokens.contamination import CONTAMINATED_FROM
from model.tokens.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from model.network.transformer import Transformer


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


def is_exported(path: Path) -> bool:
    return (path / "tokenizer.json").exists()
