"""An evaluated model → an export that other engines load, a registered version, and a decision."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from data.statistics import STATISTICS
from tasks.artifacts import CheckpointRef, EvaluationRef, Ref, StageRecord, TokensRef
from tasks.evaluate import read_documents
from tasks.inspect import TRAINING_DATA
from tasks.parity import Parity, compare, validation_ids
from tasks.promotion import Decision, decide
from tasks.stage import Night, Outcome, StageRun, run_stage
from tasks.tracking import CHALLENGER, CHAMPION

DECISION, EXPORT, PARITY = "decision.json", "model", "parity.json"


def export(trained: CheckpointRef, tokens: TokensRef, folder: Path) -> Parity:
    """Write the export and prove that transformers computes the same; raises NightStopped if it does not."""
    from model.export import export_folder
    from tasks.evaluate import load_model

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
        incumbent = read_documents(champion_scored) if champion_scored else None
        decision = decide(read_documents(scored), incumbent, config)
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
        code=("model.export", "tasks.parity", "tasks.promotion", __name__),
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


def read_decision(record: StageRecord) -> dict[str, object]:
    return dict(json.loads((record.path / DECISION).read_text(encoding="utf-8")))
