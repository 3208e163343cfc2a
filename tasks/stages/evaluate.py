"""A model → its score on the validation rows, document by document, and a few replies."""

from __future__ import annotations

import json

import polars as pl

from data.rows.parts import KINDS
from data.sides.read import read_slices
from data.tokens.overlap import contamination
from tasks.evaluation.scores import headline_scores, load_model, sample_chats, score_documents
from tasks.home.contents.scores import DOCUMENTS, SAMPLES, SCORES
from tasks.home.contents.sides import read_rows
from tasks.home.records import Content, StageRecord
from tasks.pages.text import plural
from tasks.recipes.recipe import Recipe
from tasks.stage import Outcome, StageRun, stage


def scoring(recipe: Recipe) -> dict[str, object]:
    """The settings that decide a model's scores."""
    return {
        "evaluate": recipe.evaluate,
        "sequence_length_tokens": recipe.data.sequence_length_tokens,
        "precision": recipe.pretrain.precision,
    }


@stage(config=scoring)
def evaluate(run: StageRun, model: Content, rows: StageRecord, tokens: StageRecord, label: str) -> Outcome:
    """Score one model on all validation rows.

    model: a training stage's record, or a registered version, which brings its own tokenizer.
    rows, tokens: records of split and tokens.
    label: whose model it is, `challenger` or `champion`, for people; it is not in the key.
    """
    recipe = run.recipe
    network, tokenizer = load_model(model.path, tokens.path)
    run.tracker.tags({"nightschool.model": label})
    run.tracker.dataset(rows, "validation", "validation")
    documents = pl.concat(
        score_documents(
            network, tokenizer, read_rows(rows.path, kind, "val"), recipe.data.sequence_length_tokens,
            recipe.pretrain.precision,
        ).with_columns(kind=pl.lit(kind))
        for kind in KINDS
    )  # fmt: skip
    shares = contamination(rows.path, tokens.path).rename({"share": "contaminated_share"})
    documents = documents.join(shares, on=["row_id", "kind"], how="left", maintain_order="left")
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
        headline=f"{label} {scores['val/bpb']:.4f} bits per byte on {plural(len(documents), 'document')}, "
        f"perplexity {scores['val/perplexity']:.1f}",
        figures=scores,
    )
