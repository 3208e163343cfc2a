"""A night's own page: its values gathered from records, decision, evaluations and journal."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.rows.statistics import STATISTICS
from tasks.errors import NightStopped, StoreAway
from tasks.faults import where_traceback_is
from tasks.home.contents.pages import night_page_path
from tasks.home.contents.scores import INTERVALS, read_samples, read_table
from tasks.home.contents.story import OUTCOME, PLAN, told_events, told_load, told_numbers
from tasks.home.notes import note_path
from tasks.home.outcomes import verdict
from tasks.home.records import StageRecord
from tasks.home.stage_table import TRAINING_STAGES
from tasks.night.candidate import Candidate
from tasks.night.champion_night import ChampionNight, champion_night
from tasks.night.lineage.naming import MODE, differences
from tasks.night.report import NightReport
from tasks.pages.nights.curves import StageEvent, Training
from tasks.pages.nights.night import (
    Change,
    Check,
    Comparison,
    DataCounts,
    Domain,
    NightFacts,
    Reply,
    StageLine,
    write_night_page,
)
from tasks.pages.nights.numbers import known, short_number
from tasks.pages.nights.words import Phrase, catalogue, phrase
from tasks.training.curve import stage_points

EXPERT_FIGURES = ("eval/dead_experts", "eval/load_entropy", "eval/route_drift")
SETTINGS_SHOWN = 20
log = logging.getLogger("nightschool")


def night_page(report: NightReport, candidate: Candidate, registered: StageRecord | StoreAway) -> Path | None:
    """Write the night's page; returns its path, or None if it could not be made, with a word: no page ends a night.

    report: what the summary holds; candidate, registered: the night's records, the last of which may have to wait.
    """
    night = candidate.night
    path = night_page_path(night.home, night.recipe.name, night.key)
    try:
        return write_night_page(path, facts_of(report, candidate, registered))
    except (OSError, NightStopped):  # of the disk, which the night itself needs
        raise
    except Exception as error:
        log.warning("the page of the night could not be made; %s", where_traceback_is(error, night.home))
        return None


def facts_of(report: NightReport, candidate: Candidate, registered: StageRecord | StoreAway) -> NightFacts:
    """All that the page says."""
    decision, night = report.decision, candidate.night
    figures = dict(registered.figures) if isinstance(registered, StageRecord) else {}
    version = decision["version"] if isinstance(decision["version"], int) else None
    champion = champion_night(night.journal, night.recipe.name, version, candidate.scored)
    note = read_json(note_path(night.home, night.recipe.name, night.key))
    facts = NightFacts(
        recipe=report.recipe, key=report.key, day=report.day, run_id=report.run_id, ending=verdict(decision),
        reason=str(decision["reason"]), version=version, decided_at=str(decision.get("at", "")) if report.now else "",
        bpb=known(candidate.scored.figures.get("val/bpb")), bpb_bounds=bounds_of(candidate.scored),
        comparison=comparison_of(decision, figures, champion),
        told=[*replaced_told(report), *report.afterwards, *report.losses, *twin_told(report)],
        data_told=report.validation, trainings=[training_of(record) for record in trained_of(candidate)],
        domains=list(domains_of(decision, candidate.scored, champion)),
        replies=list(replies_of(candidate.scored, champion)),
        expert_figures=expert_figures_of(candidate.scored.figures, figures),
        quality_figures=quality_of(candidate.scored, champion), data=data_of(candidate),
        checks=list(checks_of(decision)), budget=list(budget_of(decision)), audit=audit_told(decision),
        stages=[StageLine(name=r.name, seconds=r.seconds, reused=r.reused, headline=r.headline, run_id=r.run_id)
                for r in report.records],
        parameters=candidate.model.counts.get("parameters"),
    )  # fmt: skip
    if facts.comparison.difference_bpb is None:
        same = champion is not None and champion.version == version
        why = "better.same" if same else "missing.comparison" if champion else "better.first"
        facts = replace(facts, no_comparison=phrase(why))
    if champion is None:
        return replace(facts, no_changes=phrase("missing.first_model"))
    if not champion.records:
        return replace(facts, no_changes=phrase("missing.champion_gone", version=champion.version))
    return replace(facts, changes=list(changes_since(champion, candidate, note)))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is no file."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def bounds_of(scored: StageRecord) -> tuple[float, float] | None:
    """The interval of bits per byte over all documents; None where an earlier release evaluated, or one cluster is all
    there is."""
    overall = next((line for line in read_table(scored.path, INTERVALS) if line["by"] == "all"), {})
    lower, upper = known(overall.get("lower")), known(overall.get("upper"))
    return None if lower is None or upper is None else (lower, upper)


def expert_figures_of(evaluated: Mapping[str, float], registered: Mapping[str, float]) -> dict[str, float]:
    """Those of the evaluation, and the drift of routes, which the register stage finds, as it needs two evaluations."""
    return {name: of[name] for of in (evaluated, registered) for name in EXPERT_FIGURES if name in of}


def audit_told(decision: Mapping[str, Any]) -> str:
    """What the promotions of a year gained where the gate looks and on the audit slice; empty where nobody counted."""
    return str((decision.get("audit") or {}).get("sentence", ""))


def replaced_told(report: NightReport) -> Iterator[str]:
    for name, value, was in report.replaced:
        yield f"for this night {name} is {value}; the recipe has {was}"


def twin_told(report: NightReport) -> list[str]:
    return [f"dense twin: {sentence}" for sentence in report.twin_sentences] if report.twin else []


def trained_of(candidate: Candidate) -> list[StageRecord]:
    names = {entry.name for entry in TRAINING_STAGES}
    return [record for record in candidate.records if record.stage in names]


def training_of(record: StageRecord) -> Training:
    """A training stage as its logs tell it; those of an earlier release have the curve alone."""
    events = [
        StageEvent(step=int(event["step"]), kind=str(event["kind"]), detail=str(event.get("detail", "")))
        for event in told_events(record.path)
    ]
    return Training(
        name=record.name, points=stage_points(record.path), events=events, tokens=record.counts.get("tokens_seen"),
        plan=told_numbers(record.path, PLAN), outcome=told_numbers(record.path, OUTCOME), load=told_load(record.path),
    )  # fmt: skip


def comparison_of(
    decision: Mapping[str, Any], figures: Mapping[str, float], champion: ChampionNight | None
) -> Comparison:
    """The paired difference as the decision has it; one of an earlier release has it in the figures of its record."""
    scored = champion.scored if champion else None

    def bits(name: str) -> float | None:
        return known(decision.get(name, figures.get(f"promote/{name}")))

    return Comparison(
        champion=champion.version if champion else None,
        champion_bpb=known(scored.figures.get("val/bpb")) if scored else None,
        difference_bpb=bits("difference_bpb"), lower_bpb=bits("lower_bpb"), upper_bpb=bits("upper_bpb"),
        clearly_worse=bool(decision.get("clearly_worse")), minimum_detectable_bpb=bits("minimum_detectable_bpb"),
    )  # fmt: skip


def domains_of(decision: Mapping[str, Any], scored: StageRecord, champion: ChampionNight | None) -> Iterator[Domain]:
    """As the gate judged them; where it did not, the scores of both models by kind and domain."""
    before = champion.scored.figures if champion and champion.scored else {}
    for found in decision.get("domains", ()):
        numbers = {
            name: known(found.get(name)) for name in ("difference_bpb", "lower_bpb", "upper_bpb", "tolerance_bpb")
        }
        figure = f"val/bpb.{str(found['name']).replace('/', '.')}"
        yield Domain(
            name=str(found["name"]), documents=found.get("documents"), passed=found.get("passed"),
            bpb=known(scored.figures.get(figure)), champion_bpb=known(before.get(figure)), **numbers,
        )  # fmt: skip
    if decision.get("domains"):
        return
    for name, value in scored.figures.items():
        if name.startswith("val/bpb.") and name.count(".") == 2:
            now, was = known(value), known(before.get(name))
            difference = now - was if now is not None and was is not None else None
            yield Domain(
                name=name.removeprefix("val/bpb."), bpb=now, champion_bpb=was, difference_bpb=difference
            )  # fmt: skip


def replies_of(scored: StageRecord, champion: ChampionNight | None) -> Iterator[Reply]:
    """Both models' replies, by prompt."""
    before = {}
    if champion and champion.scored:
        before = {sample["prompt"]: sample["reply"] for sample in read_samples(champion.scored.path)}
    for sample in read_samples(scored.path):
        yield Reply(prompt=sample["prompt"], now=sample["reply"], champion=before.get(sample["prompt"]))


def quality_of(scored: StageRecord, champion: ChampionNight | None) -> dict[str, tuple[float, float | None]]:
    before = champion.scored.figures if champion and champion.scored else {}
    return {
        name: (value, before.get(name))
        for name, value in scored.figures.items()
        if name.startswith("eval/") and name not in EXPERT_FIGURES
    }


def data_of(candidate: Candidate) -> DataCounts:
    counts = {record.stage: record.counts for record in candidate.records}
    rows, fates = counts.get("split", {}), counts.get("deduplicate", {})
    return DataCounts(
        read=fates.get("read", 0), kept=fates.get("kept", 0), exact=fates.get("exact_duplicate", 0),
        near=fates.get("near_duplicate", 0), quarantined=fates.get("quarantined", 0),
        train_rows=sum(n for name, n in rows.items() if name.endswith("_train")),
        val_rows=sum(n for name, n in rows.items() if name.endswith("_val")),
    )  # fmt: skip


def checks_of(decision: Mapping[str, Any]) -> Iterator[Check]:
    for found in decision.get("checks", ()):
        yield Check(
            name=str(found["name"]), value=shown(found.get("value")), limit=shown(found.get("limit")),
            passed=None if found.get("value") is None else bool(found["passed"]),
            sentence=str(found.get("sentence", "")),
        )  # fmt: skip


def budget_of(decision: Mapping[str, Any]) -> Iterator[tuple[Phrase | str, str]]:
    for name, value in (decision.get("budget") or {}).items():
        known_name = phrase(f"budget.{name}")
        yield known_name if known_name.key in catalogue() else name.replace("_", " "), shown(value)


def shown(value: object) -> str:
    number = known(value)
    return short_number(number) if number is not None else "–" if value is None else str(value)


def changes_since(champion: ChampionNight, candidate: Candidate, note: Mapping[str, Any]) -> Iterator[Change]:
    """What differs from the champion's night: rows, tokens, sources, tokenizer, settings, code."""
    now = {record.stage: record for record in candidate.records}
    before = champion.records
    for stage, what in (("split", "rows"), ("tokens", "tokens")):
        counts = [train_count(records[stage]) for records in (before, now) if stage in records]
        if len(counts) == 2 and counts[0] != counts[1]:
            yield Change(what=phrase(f"change.{what}"), before=f"{counts[0]:,}", now=f"{counts[1]:,}")
    if "inspect" in before:
        was, are = sources_of(before["inspect"]), sources_of(now["inspect"])
        if new := ", ".join(sorted(are - was)):
            yield Change(what=phrase("change.new_sources"), before="–", now=new)
        if gone := ", ".join(sorted(was - are)):
            yield Change(what=phrase("change.gone_sources"), before=gone, now="–")
    if "tokens" in before:
        digests = [records["tokens"].digest_of_files("tokenizer.json") for records in (before, now)]
        if digests[0] != digests[1]:
            yield Change(what=phrase("change.tokenizer"), before=digests[0][:8], now=digests[1][:8])
    yield from changed_settings(champion.note.get("identity"), note.get("identity"))
    if stages := [name for name, r in now.items() if name in before and before[name].code_version != r.code_version]:
        yield Change(what=phrase("change.code"), before="–", now=", ".join(stages))


def changed_settings(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Iterator[Change]:
    if not before or not now:
        yield Change(what=phrase("change.no_settings"), before="–", now="–")
        return
    found = differences(now["params"], before["params"])
    changed = {name: value for name, value in found.items() if name != MODE}
    for name in list(changed)[:SETTINGS_SHOWN]:
        yield Change(what=phrase("change.setting", name=name), before=before["params"][name], now=changed[name])
    if (more := len(changed) - SETTINGS_SHOWN) > 0:
        yield Change(what=phrase("change.more_settings"), before="–", now=str(more))


def train_count(record: StageRecord) -> int:
    """Rows, or tokens, of the train side."""
    ends = ("_train", "_train_tokens")
    return sum(count for name, count in record.counts.items() if name.endswith(ends))


def sources_of(data: StageRecord) -> set[str]:
    return set(read_json(data.path / STATISTICS).get("sources", {}))
