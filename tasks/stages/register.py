"""An evaluated model → an export that other engines load, a registered version, and a decision."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from data.rows.statistics import STATISTICS
from tasks.evaluation.gate import Decision, decide
from tasks.evaluation.parity import Parity, compare, validation_ids
from tasks.evaluation.scores import load_model
from tasks.home.contents.registered import DECISION, EXPORT, PARITY, TRAINING_DATA
from tasks.home.contents.scores import read_documents
from tasks.home.records import StageRecord
from tasks.stage import Night, Outcome, StageRun, by_content, stage
from tasks.tracking.registry import CHALLENGER, CHAMPION, ModelVersion


def without_champion(
    night: Night,
    *,
    champion: ModelVersion | None,
    champion_scored: StageRecord | None,
    data: StageRecord,
    **records: StageRecord,
) -> dict[str, str]:
    """Digests of what makes the model. The champion is not among them: a decision is made once, whoever comes after."""
    return {**by_content(night, **records), "data": data.digest_of_files(STATISTICS)}


@stage(config=lambda recipe: recipe.promote, inputs=without_champion)
def register(
    run: StageRun,
    trained: StageRecord,
    tokens: StageRecord,
    scored: StageRecord,
    champion: ModelVersion | None,
    champion_scored: StageRecord | None,
    data: StageRecord,
) -> Outcome:
    """Export, register, and move the champion alias if the evidence says so.

    trained, tokens: records of the last training stage and of the tokens.
    champion: the version in use, None if there is none.
    scored, champion_scored: evaluations of the new model and of the champion, None if there is no champion or if the
        new model is the champion.
    data: tonight's data report, whose statistics the export carries.
    """
    parity = export(trained, tokens, run.folder / EXPORT)
    shutil.copy(data.path / STATISTICS, run.folder / EXPORT / TRAINING_DATA)
    if champion and champion.digest == trained.digest:
        decision = Decision(
            True, f"these weights are the champion's, version {champion.version}: the alias moves to them"
        )
    else:
        incumbent = read_documents(champion_scored.path) if champion_scored else None
        decision = decide(read_documents(scored.path), incumbent, run.recipe.promote)
    run.tracker.artifact(run.folder / EXPORT, EXPORT)
    version = publish(run, trained, decision)
    content = {"promoted": decision.promoted, "reason": decision.reason, "version": version}
    for name, written in ((DECISION, content), (PARITY, asdict(parity))):
        (run.folder / name).write_text(json.dumps(written, indent=1), encoding="utf-8")
        run.tracker.artifact(run.folder / name)
    alias = CHAMPION if decision.promoted else CHALLENGER
    figures = parity.figures | {"promote/promoted": float(decision.promoted)}
    if champion_scored:
        figures |= {"promote/difference_bpb": decision.difference_bpb, "promote/upper_bpb": decision.upper_bpb}
    return Outcome(counts={"version": version}, headline=f"version {version} is {alias}", figures=figures)


def export(trained: StageRecord, tokens: StageRecord, folder: Path) -> Parity:
    """Write the export and prove that transformers computes the same; raises NightStopped if it does not."""
    from model.exchange.export import export_folder  # torch takes seconds to import; a reused stage must not pay

    model, tokenizer = load_model(trained.path, tokens.path)
    model = model.cpu()
    export_folder(model, tokenizer, folder)
    parity = compare(model, folder, validation_ids(tokens))
    parity.check(folder)
    return parity


def publish(run: StageRun, trained: StageRecord, decision: Decision) -> int:
    """Register the version and move the alias. The lease is checked last, so a night overtaken changes nothing."""
    night = run.night
    night.journal.check(night.token)
    version = night.store.registry.register(run.tracker.run_id, trained.digest, decision.reason)
    if decision.promoted:
        night.store.registry.make_champion(version, decision.reason)
    else:
        night.store.registry.set_alias(CHALLENGER, version)
    run.tracker.tags({"nightschool.promoted": str(decision.promoted).lower(), "nightschool.reason": decision.reason})
    night.journal.note(event="decided", version=version, promoted=decision.promoted, reason=decision.reason)
    return version
