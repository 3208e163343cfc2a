"""A model → its score on the validation rows, document by document, and a few replies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE
from tokenizers import Tokenizer

from data.contamination import CONTAMINATED_FROM
from data.encode import Encoder
from model.config import IGNORED
from model.tokenizer import load_tokenizer, token_byte_lengths
from tasks.artifacts import CheckpointRef, DatasetRef, EvaluationRef, StageRecord, TokensRef
from tasks.overlap import contamination
from tasks.split import KINDS, read_rows, read_slices
from tasks.stage import Night, Outcome, StageRun, run_stage
from tasks.stage_configs import EvaluateConfig
from tasks.tokens import pack_table

if TYPE_CHECKING:
    from model.transformer import Transformer

DOCUMENTS, SAMPLES, SCORES = "documents.parquet", "samples.json", "scores.json"


def score_documents(
    model: Transformer, tokenizer: Tokenizer, rows: pl.DataFrame, max_tokens: int, precision: str
) -> pl.DataFrame:
    """Nats, targets and target bytes of each row: (row_id, source, nats, tokens, num_bytes).

    Rows are encoded with the model's own tokenizer, so a champion with another vocabulary is asked for the same text.
    """
    from model.evaluate import score  # torch takes seconds to import; a reused stage must not pay

    packed = pack_table(rows, Encoder.of(tokenizer), max_tokens)
    nats = score(model, packed.tokens, precision=precision)
    labels = packed.tokens.labels
    wanted = labels != IGNORED
    num_bytes = np.where(wanted, token_byte_lengths(tokenizer)[np.maximum(labels, 0)], 0)

    def sums(array: np.ndarray) -> list[float]:
        running = np.concatenate([[0], array.ravel().cumsum(dtype=np.float64)])
        starts = packed.segments["row"].to_numpy() * labels.shape[1] + packed.segments["start"].to_numpy()
        return list(running[starts + packed.segments["length"].to_numpy()] - running[starts])

    by_segment = packed.segments.select("row_id", "source").with_columns(
        nats=pl.Series(sums(nats)),
        tokens=pl.Series(sums(wanted)).cast(pl.Int64),
        num_bytes=pl.Series(sums(num_bytes)).cast(pl.Int64),
    )
    return by_segment.group_by("row_id", "source", maintain_order=True).sum()


def load_model(ref: CheckpointRef, tokens: TokensRef) -> tuple[Transformer, Tokenizer]:
    """A training stage's model with tonight's tokenizer, or an exported folder with its own."""
    from model.importing import import_hugging_face
    from tasks.machine import best_device
    from tasks.training import load_trained

    exported = is_exported(ref.path)
    model = import_hugging_face(ref.path) if exported else load_trained(ref.path)
    return model.to(best_device()), load_tokenizer(ref.path if exported else tokens.path)


def sample_chats(model: Transformer, tokenizer: Tokenizer, config: EvaluateConfig) -> list[dict[str, str]]:
    """The model's reply to each prompt of the recipe."""
    from model.generate import reply

    return [
        {
            "prompt": prompt,
            "reply": reply(
                model, tokenizer, [("user", prompt)], max_new_tokens=config.max_new_tokens,
                temperature=config.temperature, seed=number,
            ),
        }
        for number, prompt in enumerate(config.prompts)
    ]  # fmt: skip


def headline_scores(documents: pl.DataFrame) -> dict[str, float]:
    """Scores overall, per kind, source and slice, and of the documents that the train side does not repeat."""
    from tasks.metrics import language_model_metrics

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


@task(name="evaluate", cache_policy=NO_CACHE, persist_result=False)
def evaluate(night: Night, model: CheckpointRef, rows: DatasetRef, tokens: TokensRef, label: str) -> StageRecord:
    """Score one model on all validation rows. `label` says whose it is, challenger or champion."""
    recipe = night.recipe

    def work(run: StageRun) -> Outcome:
        network, tokenizer = load_model(model, tokens)
        run.tracker.tags({"nightschool.model": label})
        run.tracker.dataset(rows, "validation", "validation")
        documents = pl.concat(
            score_documents(
                network, tokenizer, read_rows(rows, kind, "val"), recipe.data.sequence_length_tokens,
                recipe.pretrain.precision,
            ).with_columns(kind=pl.lit(kind))
            for kind in KINDS
        )  # fmt: skip
        facts = contamination(rows, tokens.path).rename({"share": "contaminated_share"})
        documents = documents.join(facts, on=["row_id", "kind"], how="left", maintain_order="left")
        scores = headline_scores(documents)
        slices = read_slices(rows.path)
        run.tracker.params({f"slice.{name.replace('/', '.')}": str(s["version"]) for name, s in slices.items()})
        samples = sample_chats(network, tokenizer, recipe.evaluate)
        documents.write_parquet(run.folder / DOCUMENTS)
        for name, content in ((SAMPLES, samples), (SCORES, scores)):
            (run.folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
            run.tracker.artifact(run.folder / name, "evaluation")
        return Outcome(
            counts={"documents": len(documents), "tokens": int(documents["tokens"].sum())},
            headline=f"{label} {scores['val/bpb']:.4f} bits per byte on {len(documents):,} documents, "
            f"perplexity {scores['val/perplexity']:.1f}",
            figures=scores,
        )

    return run_stage(
        night,
        "evaluate",
        inputs={"model": model, "rows": rows, "tokens": tokens},
        config={
            "evaluate": recipe.evaluate,
            "sequence_length_tokens": recipe.data.sequence_length_tokens,
            "precision": recipe.pretrain.precision,
        },
        code=("model", "tasks.tokens", "tasks.overlap", "tasks.metrics", "data.encode", "data.windows", __name__),
        work=work,
    )


def is_exported(path: Path) -> bool:
    return (path / "tokenizer.json").exists()


def read_documents(ref: EvaluationRef) -> pl.DataFrame:
    return pl.read_parquet(ref.path / DOCUMENTS)


def read_samples(path: Path) -> list[dict[str, str]]:
    return list(json.loads((path / SAMPLES).read_text(encoding="utf-8")))
