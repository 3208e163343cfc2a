"""A model → its score on the validation rows, document by document, and a few replies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from data.rows.parts import KINDS
from data.sides.read import read_slices
from data.tokens.overlap import contamination
from tasks.evaluation.scores import headline_scores, load_model, sample_chats, score_documents
from tasks.home.contents.scores import DOCUMENTS, SAMPLES, SCORES
from tasks.home.contents.sides import read_rows
from tasks.home.records import CheckpointRef, DatasetRef, StageRecord, TokensRef
from tasks.stage import Night, Outcome, StageRun, run_stage

if TYPE_CHECKING:
    pass


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
                network, tokenizer, read_rows(rows.path, kind, "val"), recipe.data.sequence_length_tokens,
                recipe.pretrain.precision,
            ).with_columns(kind=pl.lit(kind))
            for kind in KINDS
        )  # fmt: skip
        facts = contamination(rows.path, tokens.path).rename({"share": "contaminated_share"})
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
        code=(
            "model",
            "tasks.stages.tokens",
            "data.tokens.overlap",
            "tasks.evaluation.metrics",
            "data.tokens.encode",
            "data.tokens.windows",
            __name__,
        ),
        work=work,
    )
