"""A model's scores: per document, overall, per kind, source and slice; and its sample replies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from tokenizers import Tokenizer

from data.tokens.contamination import CONTAMINATED_FROM
from data.tokens.encode import Encoder
from data.tokens.tokenise import pack_table
from model.tokens.packing import IGNORED
from model.tokens.tokenizer import load_tokenizer, token_byte_lengths
from tasks.recipes.stage_configs import EvaluateConfig

if TYPE_CHECKING:
    from model.network.transformer import Transformer


def score_documents(
    model: Transformer, tokenizer: Tokenizer, rows: pl.DataFrame, max_tokens: int, precision: str
) -> pl.DataFrame:
    """Nats, targets and target bytes of each row: (row_id, source, nats, tokens, num_bytes).

    Rows are encoded with the model's own tokenizer, so a champion with another vocabulary is asked for the same text.
    """
    from model.training.scoring import score  # torch takes seconds to import; a reused stage must not pay

    packed = pack_table(rows, Encoder.of(tokenizer), max_tokens)
    nats = score(model, packed.tokens, precision=precision)
    num_bytes = packed.target_bytes(token_byte_lengths(tokenizer))
    by_segment = packed.segments.select("row_id", "source").with_columns(
        nats=pl.Series(packed.sums(nats)),
        tokens=pl.Series(packed.sums(packed.tokens.labels != IGNORED)).cast(pl.Int64),
        num_bytes=pl.Series(packed.sums(num_bytes)).cast(pl.Int64),
    )
    return by_segment.group_by("row_id", "source", maintain_order=True).sum()


def load_model(folder: Path, tokens: Path) -> tuple[Transformer, Tokenizer]:
    """The model of a training stage's folder with the tokenizer of `tokens`, or an exported folder with its own."""
    from model.exchange.hugging_face import import_hugging_face
    from tasks.planning.machine import best_device
    from tasks.training.trained import load_trained

    exported = is_exported(folder)
    model = import_hugging_face(folder) if exported else load_trained(folder)
    return model.to(best_device()), load_tokenizer(folder if exported else tokens)


def sample_chats(model: Transformer, tokenizer: Tokenizer, config: EvaluateConfig) -> list[dict[str, str]]:
    """The model's reply to each prompt of the recipe."""
    from model.config.sampling import Sampling
    from model.generation.generate import reply

    return [
        {
            "prompt": prompt,
            "reply": reply(
                model, tokenizer, [("user", prompt)],
                Sampling(max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=number),
            ),
        }
        for number, prompt in enumerate(config.prompts)
    ]  # fmt: skip


def headline_scores(documents: pl.DataFrame) -> dict[str, float]:
    """Scores overall, per kind, source and slice, and of the documents that the train side does not repeat."""
    from tasks.evaluation.metrics import language_model_metrics

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
