"""A model → its score on the validation rows, document by document, its replies, and what else is asked of it."""

from __future__ import annotations

from dataclasses import replace

from data.rows.parts import KINDS
from data.sides.slices import SLICES, read_slices, validation_version
from data.tokens.overlap import CONTAMINATED, FINGERPRINTS, contamination
from tasks.evaluation.measurement import SHOWN, measure_model
from tasks.evaluation.measures.harness import harness_identity, harness_scores
from tasks.evaluation.scores import is_exported, load_model
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
    night: Night, model: Content, rows: StageRecord, tokens: StageRecord, label: str
) -> dict[str, str]:  # fmt: skip
    """Digests of the model, of the version of the validation side, of what is known of its documents, and of what the
    harness asks: a champion that was scored on this version is found done, whatever else came to the train side."""
    return {
        "model": model.digest,
        "rows": rows.digest_of_files(*(f"{kind}.val." for kind in KINDS), SLICES),
        "tokens": tokens.digest_of_files("tokenizer.json", FINGERPRINTS, CONTAMINATED),
        **harness_identity(night.recipe.evaluate),
    }


@stage(config=scoring, inputs=what_is_scored)
def evaluate(run: StageRun, model: Content, rows: StageRecord, tokens: StageRecord, label: str) -> Outcome:
    """Score one model on all validation rows, and ask it what the recipe asks.

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
    known = contamination(rows.path, tokens.path).rename({"share": "contaminated_share"})
    held_out = {kind: read_rows(rows.path, kind, "val") for kind in KINDS}
    found = measure_model(network, tokenizer, recipe, held_out, known)
    asked = harness_scores(network, tokenizer, model.path if is_exported(model.path) else None, recipe.evaluate)
    found = replace(found, scores={**found.scores, **asked})
    found.write(run.folder)
    (run.folder / SLICES).write_bytes((rows.path / SLICES).read_bytes())
    for name in SHOWN:
        run.tracker.artifact(run.folder / name, "evaluation")
    documents, figures = found.documents, found.figures
    return Outcome(
        counts={"documents": len(documents), "tokens": int(documents["tokens"].sum())},
        headline=f"{label} {figures['val/bpb']:.4f} bits per byte on {plural(len(documents), 'document')} of "
        f"validation {version}, perplexity {figures['val/perplexity']:.1f}",
        figures=figures,
    )
