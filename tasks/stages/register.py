"""An evaluated model → an export that other engines load and MLflow serves, a registered version, and a decision."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from data.rows.statistics import STATISTICS
from data.sides.slices import read_slices, validation_version
from tasks.evaluation.audit import audit_gap
from tasks.evaluation.budget import Allowance, allowance
from tasks.evaluation.card import card_of
from tasks.evaluation.gate import Evidence, decide
from tasks.evaluation.measures.experts import drift_figures
from tasks.evaluation.measures.parity import Parity, compare, validation_ids
from tasks.evaluation.past import PastDecision, carried_losses, now_utc, past_decisions
from tasks.evaluation.resampling import difference, paired
from tasks.evaluation.scores import load_model
from tasks.evaluation.verdict import Decision
from tasks.home.contents.registered import DECISION, EXPORT, PARITY, TRAINING_DATA
from tasks.home.contents.scores import read_audited, read_documents
from tasks.home.journal import DECIDED
from tasks.home.lines import now
from tasks.home.notes import LINEAGE, note_path, read_note
from tasks.home.records import StageRecord
from tasks.recipes.recipe import Recipe, data_identity
from tasks.settings import who_acts
from tasks.stage import Night, Outcome, StageRun, by_content, stage
from tasks.tracking.models.mlmodel import make_mlflow_model
from tasks.tracking.moves.ledger import Overtaken
from tasks.tracking.registry import ModelVersion
from tasks.tracking.tracker import VALIDATION
from tasks.tracking.versions import ARCHITECTURE, BITS_PER_BYTE, CHALLENGER, PARENT, TRUNK

log = logging.getLogger("nightschool")


def without_champion(
    night: Night,
    *,
    champion: ModelVersion | None,
    champion_scored: StageRecord | None,
    data: StageRecord,
    obstacle: str = "",
    **records: StageRecord,
) -> dict[str, str]:
    """Digests of what makes the model. The champion is not among them: a decision is made once, whoever comes after."""
    return {**by_content(night, **records), "data": data.digest_of_files(STATISTICS)}


def promotion(recipe: Recipe) -> dict[str, object]:
    """The settings that decide what becomes of a model, and whose model it is: each recipe has a registered one."""
    return {"recipe": recipe.name, "promote": recipe.promote}


@stage(config=promotion, inputs=without_champion)
def register(
    run: StageRun,
    trained: StageRecord,
    tokens: StageRecord,
    scored: StageRecord,
    champion: ModelVersion | None,
    champion_scored: StageRecord | None,
    data: StageRecord,
    obstacle: str = "",
) -> Outcome:
    """Export, register, and move the champion alias if the evidence says so.

    trained, tokens: records of the last training stage and of the tokens.
    champion: the version in use, None if there is none.
    scored, champion_scored: evaluations of the new model and of the champion, None if there is no champion or if the
        new model is the champion.
    data: tonight's data report, whose statistics the export carries.
    obstacle: why there is nothing to compare with although there is, or was, a champion; empty if there is none.
    """
    parity = export(trained, tokens, run.folder / EXPORT)
    shutil.copy(data.path / STATISTICS, run.folder / EXPORT / TRAINING_DATA)
    before = Before.of(run, champion)
    decision = decision_on(run, trained, scored, champion, champion_scored, obstacle, parity.figures, before)
    told = {**scored.figures, **parity.figures}
    nights = nights_of(run.night)
    card = card_of(run.recipe, run.night.day, trained, data, told, decision.reason, evidence_of(decision), nights)
    make_mlflow_model(run.folder / EXPORT, card)
    run.tracker.artifact(run.folder / EXPORT, EXPORT)
    audited_bpb = audit_difference(run.recipe, scored, champion_scored) if decision.alpha is not None else None
    version, decision = publish(run, trained, scored, decision, champion, audited_bpb, before)
    gap = audit_gap([*before.past, *noted(decision, audited_bpb)], now_utc())
    log.info("%s", gap.sentence)
    content = decision.as_content() | {
        "version": version, "at": now(), "validation": version_scored(scored),
        "budget": asdict(before.allowed),
        "audit": asdict(gap) | {"difference_bpb": audited_bpb, "gap_bpb": gap.gap_bpb, "sentence": gap.sentence},
    }  # fmt: skip
    for name, written in ((DECISION, content), (PARITY, asdict(parity))):
        (run.folder / name).write_text(json.dumps(written, indent=1), encoding="utf-8")
        run.tracker.artifact(run.folder / name)
    figures = parity.figures | {"promote/promoted": float(decision.promoted)}
    figures["export/megabytes"] = sum(f.stat().st_size for f in (run.folder / EXPORT).rglob("*") if f.is_file()) / 1e6
    headline = f"version {version}, {'promoted' if decision.promoted else 'not promoted'}"
    if champion_scored:
        found = {"promote/difference_bpb": decision.difference_bpb, "promote/upper_bpb": decision.upper_bpb}
        figures |= {name: value for name, value in found.items() if math.isfinite(value)}
        figures |= drift_figures(scored.path, champion_scored.path, run.recipe.model.num_experts)
    return Outcome(counts={"version": version}, headline=headline, figures=figures)


@dataclass(frozen=True)
class Before:
    """What the recipe's earlier decisions leave to this one."""

    past: list[PastDecision]
    """Its comparisons."""
    carried: dict[str, float]
    """What the champion lost against the best one before it."""
    allowed: Allowance

    @classmethod
    def of(cls, run: StageRun, champion: ModelVersion | None) -> Before:
        entries, recipe = run.night.journal.entries(), run.recipe
        past = past_decisions(entries, recipe.name)
        carried = carried_losses(entries, recipe.name, champion.version if champion else None)
        return cls(past, carried, allowance(past, now_utc(), recipe.promote.false_promotions_a_year))


def decision_on(
    run: StageRun,
    trained: StageRecord,
    scored: StageRecord,
    champion: ModelVersion | None,
    champion_scored: StageRecord | None,
    obstacle: str,
    exported: Mapping[str, float],
    before: Before,
) -> Decision:
    """Whether the champion alias moves.

    exported: figures of the export.
    """
    if decision := without_comparing(run, trained, scored, champion, champion_scored, obstacle):
        return decision
    evidence = Evidence(
        before.allowed, {**scored.figures, **exported}, champion_scored.figures if champion_scored else None,
        max((-decision.difference_bpb for decision in before.past), default=None), before.carried,
    )  # fmt: skip
    incumbent = read_documents(champion_scored.path) if champion_scored else None
    return decide(read_documents(scored.path), incumbent, run.recipe.promote, evidence)


def without_comparing(
    run: StageRun,
    trained: StageRecord,
    scored: StageRecord,
    champion: ModelVersion | None,
    champion_scored: StageRecord | None,
    obstacle: str,
) -> Decision | None:
    """The decision where there is nothing to compare. What a person took out of use comes back by a person alone."""
    promote = run.recipe.promote
    if champion and champion.digest == trained.digest:
        same = f"these weights are the champion's, version {champion.version}"
        if promote.mode != "auto":
            return Decision(False, f"{same}, which keeps the alias: promote.mode is {promote.mode}")
        return Decision(True, f"{same}: the alias moves to them")
    if withdrawn := run.night.registry.rolled_back(trained.digest):
        reason = f"these weights are those of version {withdrawn.version}, which was rolled back {withdrawn.note}"
        return Decision(False, f"{reason}: nothing promotes them again but a person", waits=True)
    if obstacle:
        return Decision(False, f"nothing was compared: {obstacle}", waits=True)
    if champion_scored and version_scored(scored) != version_scored(champion_scored):
        return Decision(
            False,
            f"nothing was compared: the new model was scored on validation {version_scored(scored)}, the champion on "
            f"{version_scored(champion_scored)}, which are other documents",
            waits=True,
        )
    return None


def audit_difference(recipe: Recipe, scored: StageRecord, champion_scored: StageRecord | None) -> float | None:
    """Challenger minus champion on the audit slice, in bits per byte, weighed as where the gate looks; None if none."""
    if champion_scored is None:
        return None
    table = paired(read_audited(scored.path), read_audited(champion_scored.path))
    return difference(table, recipe.promote) if len(table) else None


def noted(decision: Decision, audited_bpb: float | None) -> list[PastDecision]:
    """The decision as the journal has it; none if nothing was compared."""
    if decision.alpha is None:
        return []
    return [
        PastDecision(
            at=now_utc(), promoted=decision.promoted, alpha=decision.alpha, difference_bpb=decision.difference_bpb,
            audit_difference_bpb=audited_bpb,
        )
    ]  # fmt: skip


def version_scored(scored: StageRecord) -> str:
    """The version of the validation side that an evaluation is on."""
    return str(validation_version(read_slices(scored.path)))


def export(trained: StageRecord, tokens: StageRecord, folder: Path) -> Parity:
    """Write the export and prove that transformers computes the same; raises NightStopped if it does not."""
    from model.exchange.export import export_folder  # torch takes seconds to import; a reused stage must not pay

    model, tokenizer = load_model(trained.path, tokens.path)
    model = model.cpu()
    export_folder(model, tokenizer, folder)
    parity = compare(model, folder, validation_ids(tokens))
    parity.check(folder)
    return parity


def publish(
    run: StageRun, trained: StageRecord, scored: StageRecord, decision: Decision, champion: ModelVersion | None,
    audited_bpb: float | None, before: Before,
) -> tuple[int, Decision]:  # fmt: skip
    """Register the version and move the alias. Nobody takes the home meanwhile, so a night overtaken changes nothing.

    champion: what the decision was made on; where the registry has another one by now, the decision does not stand, and
    the one returned says so.
    The line of the journal is the account of the error budget: a comparison without one has spent nothing.
    """
    night = run.night
    registry, data = night.registry, data_identity(run.recipe)
    facts = {ARCHITECTURE: f"Qwen3{'' if run.recipe.model.dense else 'Moe'}ForCausalLM"}
    if came_from := nights_of(night):
        facts[PARENT] = str(came_from[-1]["from_night"])
        facts[TRUNK] = night.start.parent
    if "val/bpb" in scored.figures:
        facts[BITS_PER_BYTE] = f"{scored.figures['val/bpb']:.4f}"
    with night.journal.holding(night.token):
        version = registry.register(run.tracker.run_id, trained.digest, decision.reason, data, facts)
        if decision.promoted:
            instead_of = champion.version if champion else None
            try:
                registry.make_champion(version, decision.reason, instead_of=instead_of, evidence=evidence_of(decision))
            except Overtaken as overtaken:
                decision = replace(decision, promoted=False, waits=True, reason=f"{decision.reason}; but {overtaken}")
        if not decision.promoted:
            registry.set_alias(CHALLENGER, version)
        registry.note_verdict(version, decision.reason, evidence_of(decision))
    run.tracker.tags({
        "nightschool.promoted": str(decision.promoted).lower(), "nightschool.reason": decision.reason,
        VALIDATION: version_scored(scored),
    })  # fmt: skip
    spent = {} if decision.alpha is None else {
        "alpha": decision.alpha, "difference_bpb": decision.difference_bpb, "audit_difference_bpb": audited_bpb,
    }  # fmt: skip
    night.journal.note(
        event=DECIDED, recipe=run.recipe.name, version=version, promoted=decision.promoted, reason=decision.reason,
        champion=champion.version if champion else None, losses={**before.carried, **decision.losses}, who=who_acts(),
        evidence=evidence_of(decision), **spent,
    )  # fmt: skip
    return version, decision


def nights_of(night: Night) -> list[dict[str, Any]]:
    """The nights that the weights of tonight's model went through, this one last."""
    path = note_path(night.home, night.recipe.name, night.key)
    return list(read_note(path).get(LINEAGE, [])) if path.exists() else []


def evidence_of(decision: Decision) -> dict[str, float | bool]:
    """The numbers of a decision, for the registry; those that are finite."""
    values = asdict(decision).items()
    return {name: v for name, v in values if isinstance(v, bool | float | int) and math.isfinite(v)}
