"""An evaluated model → an export that other engines load, a registered version, and a decision."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from data.rows.statistics import STATISTICS
from tasks.evaluation.gate import Decision, decide
from tasks.evaluation.parity import Parity, compare, validation_ids
from tasks.home.contents.registered import DECISION, EXPORT, PARITY, TRAINING_DATA
from tasks.home.contents.scores import read_documents
from tasks.home.records import CheckpointRef, EvaluationRef, Ref, StageRecord, TokensRef
from tasks.stage import Night, Outcome, StageRun, run_stage
from tasks.tracking.mlflow_store import CHALLENGER, CHAMPION


def export(trained: CheckpointRef, tokens: TokensRef, folder: Path) -> Parity:
    """Write the export and prove that transformers computes the same; raises NightStopped if it does not."""
    from model.exchange.export import export_folder
    from tasks.evaluation.scores import load_model

    model, tokenizer = load_model(trained, tokens)
    model = model.cpu()
    export_folder(model, tokenizer, folder)
    parity = compare(model, folder, validation_ids(tokens))
    parity.check(folder)
    return parity


@task(name="register", cache_policy=NO_CACHE, persist_result=False)
def register(
    night: Night,
    trained: CheckpointRef,
    tokens: TokensRef,
    scored: EvaluationRef,
    champion_scored: EvaluationRef | None,
    data: Ref,
) -> StageRecord:
    """Export, register, and move the champion alias if the evidence says so. `data` is tonight's data report."""
    config = night.recipe.promote

    def work(run: StageRun) -> Outcome:
        parity = export(trained, tokens, run.folder / EXPORT)
        shutil.copy(data.path / STATISTICS, run.folder / EXPORT / TRAINING_DATA)
        incumbent = read_documents(champion_scored.path) if champion_scored else None
        decision = decide(read_documents(scored.path), incumbent, config)
        run.tracker.artifact(run.folder / EXPORT, EXPORT)
        version = publish(night, run, trained, decision)
        content = {"promoted": decision.promoted, "reason": decision.reason, "version": version}
        for name, written in ((DECISION, content), (PARITY, asdict(parity))):
            (run.folder / name).write_text(json.dumps(written, indent=1), encoding="utf-8")
            run.tracker.artifact(run.folder / name)
        alias = CHAMPION if decision.promoted else CHALLENGER
        figures = parity.figures | {"promote/promoted": float(decision.promoted)}
        if champion_scored:
            figures |= {"promote/difference_bpb": decision.difference_bpb, "promote/upper_bpb": decision.upper_bpb}
        return Outcome(counts={"version": version}, headline=f"version {version} is {alias}", figures=figures)

    return run_stage(
        night,
        "register",
        inputs={"trained": trained, "tokens": tokens, "scored": scored, "data": data},
        config=config,
        code=("model.exchange.export", "tasks.evaluation.parity", "tasks.evaluation.gate", __name__),
        work=work,
    )


def publish(night: Night, run: StageRun, trained: CheckpointRef, decision: Decision) -> int:
    """Register the version and move the alias. The lease is checked last, so a night overtaken changes nothing."""
    night.journal.check(night.token)
    version = night.store.register(run.tracker.run_id, trained.digest, decision.reason)
    if decision.promoted:
        night.store.make_champion(version, decision.reason)
    else:
        night.store.set_alias(CHALLENGER, version)
    run.tracker.tags({"nightschool.promoted": str(decision.promoted).lower(), "nightschool.reason": decision.reason})
    night.journal.note(event="decided", version=version, promoted=decision.promoted, reason=decision.reason)
    return version
