"""A model → its score on the validation rows, document by document, and a few replies."""

from __future__ import annotations

import json
from dataclasses import replace

import polars as pl

from data.rows.parts import KINDS
from data.sides.slices import SLICES, read_slices, validation_version
from data.tokens.overlap import CONTAMINATED, FINGERPRINTS, contamination
from tasks.evaluation.audit import apart, audit_figures
from tasks.evaluation.scores import headline_scores, load_model, sample_chats, score_documents
from tasks.home.contents.scores import AUDITED, DOCUMENTS, SAMPLES, SCORES
from tasks.home.contents.sides import read_rows
from tasks.home.records import Content, StageRecord
from tasks.pages.text import plural
from tasks.recipes.recipe import Recipe
from tasks.stage import Night, Outcome, StageRun, stage
from tasks.tracking.tracker import VALIDATION


def scoring(recipe: Recipe) -> dict[str, object]:
    """The settings that decide a model's scores."""
    return {
        "evaluate": recipe.evaluate,
        "sequence_length_tokens": recipe.data.sequence_length_tokens,
        "precision": recipe.pretrain.precision,
    }


def what_is_scored(
    _night: Night, model: Content, rows: StageRecord, tokens: StageRecord, label: str
) -> dict[str, str]:  # fmt: skip
    """Digests of the model, of the version of the validation side, and of what is known of its documents: a champion
    that was scored on this version is found done, whatever else came to the train side."""
    return {
        "model": model.digest,
        "rows": rows.digest_of_files(*(f"{kind}.val." for kind in KINDS), SLICES),
        "tokens": tokens.digest_of_files("tokenizer.json", FINGERPRINTS, CONTAMINATED),
    }


@stage(config=scoring, inputs=what_is_scored)
def evaluate(run: StageRun, model: Content, rows: StageRecord, tokens: StageRecord, label: str) -> Outcome:
    """Score one model on all validation rows.

    model: a training stage's record, or a registered version, which brings its own tokenizer.
    rows, tokens: records of split and tokens.
    label: whose model it is, `challenger` or `champion`, for people; it is not in the key.
    """
    recipe = run.recipe
    network, tokenizer = load_model(model.path, tokens.path)
    slices = read_slices(rows.path)
    version = validation_version(slices)
    run.tracker.tags({"nightschool.model": label, VALIDATION: str(version)})
    run.tracker.params({f"slice.{name.replace('/', '.')}": str(its.newest) for name, its in slices.items()})
    run.tracker.dataset(replace(rows, digest=version.digest), f"validation v{version.number}", "validation")
    documents = pl.concat(
        score_documents(
            network, tokenizer, read_rows(rows.path, kind, "val"), recipe.data.sequence_length_tokens,
            recipe.pretrain.precision,
        ).with_columns(kind=pl.lit(kind))
        for kind in KINDS
    )  # fmt: skip
    shares = contamination(rows.path, tokens.path).rename({"share": "contaminated_share"})
    documents = documents.join(shares, on=["row_id", "kind"], how="left", maintain_order="left")
    documents, audited = apart(documents, recipe.evaluate.audit_share)
    scores = headline_scores(documents) | audit_figures(audited)
    samples = sample_chats(network, tokenizer, recipe.evaluate)
    documents.write_parquet(run.folder / DOCUMENTS)
    audited.write_parquet(run.folder / AUDITED)
    (run.folder / SLICES).write_bytes((rows.path / SLICES).read_bytes())
    for name, content in ((SAMPLES, samples), (SCORES, scores)):
        (run.folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        run.tracker.artifact(run.folder / name, "evaluation")
    return Outcome(
        counts={"documents": len(documents), "tokens": int(documents["tokens"].sum())},
        headline=f"{label} {scores['val/bpb']:.4f} bits per byte on {plural(len(documents), 'document')} of "
        f"validation {version}, perplexity {scores['val/perplexity']:.1f}",
        figures=scores,
    )
