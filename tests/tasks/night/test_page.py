"""What a night's page is made of: the champion's night as it was then, the gate's decision, what the stages tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.home.contents.scores import INTERVALS
from tasks.home.contents.story import (
    OUTCOME,
    PLAN,
    ROLL_BACK,
    tell_event,
    tell_outcome,
    tell_plan,
    told_events,
    told_load,
    told_numbers,
)
from tasks.home.journal import Journal
from tasks.home.outcomes import verdict
from tasks.home.records import StageRecord
from tasks.night.champion_night import champion_before, champion_night
from tasks.night.page import (
    audit_told,
    bounds_of,
    budget_of,
    changed_settings,
    checks_of,
    comparison_of,
    domains_of,
    expert_figures_of,
    replies_of,
    training_of,
)
from tasks.pages.nights.words import phrase
from tests.tasks.rows import stage_record

DECISION: dict[str, Any] = {
    "promoted": False, "refused": True, "reason": "a domain is worse", "version": 7, "difference_bpb": -0.02,
    "lower_bpb": -0.03, "upper_bpb": -0.01, "clearly_worse": False, "minimum_detectable_bpb": 0.006,
    "checks": [{"name": "dead experts", "value": 3, "limit": 2, "passed": False, "sentence": "3 are dead"}],
    "domains": [{"name": "chat/zh", "difference_bpb": 0.03, "lower_bpb": 0.01, "upper_bpb": 0.05,
                 "tolerance_bpb": 0.02, "passed": False, "documents": 78}],
    "budget": {"alpha": 0.25, "new_number": 3}, "audit": {"sentence": "a gap of +0.01", "gap_bpb": 0.01},
}  # fmt: skip


def evaluation(folder: Path, model: str, reply: str, **figures: float) -> StageRecord:
    """A finished evaluation of a model, with one reply."""
    folder.mkdir(parents=True)
    (folder / "samples.json").write_text(json.dumps([{"prompt": "Hello!", "reply": reply}]))
    record = stage_record(folder, inputs={"model": model, "rows": "r", "tokens": "t"}, figures=figures)
    record.write(folder)
    return record


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A champion, version 3, scored on tonight's documents and on others."""
    data = tmp_path / "data"
    trained = stage_record(data / "sft@3", digest="weights of 3")
    trained.path.mkdir(parents=True)
    trained.write(trained.path)
    evaluation(data / "evaluate@c", "weights of 3", "Hi.", **{"val/bpb": 2.0, "val/bpb.chat.zh": 2.4})
    other = evaluation(data / "evaluate@o", "weights of 3", "Old.", **{"val/bpb": 9.0})
    StageRecord(**{**other.__dict__, "inputs": {**other.inputs, "rows": "older"}}).write(other.path)
    note = {"key": "k3", "version": 3, "run_id": "r", "stages": {"sft": "sft@3", "split": "split@gone"}}
    (tmp_path / "nights").mkdir()
    (tmp_path / "nights" / "demo@k3.json").write_text(json.dumps(note))
    journal = Journal(tmp_path)
    for version, promoted in ((2, True), (3, True), (4, False), (5, True)):
        journal.note(event="decided", recipe="demo", version=version, promoted=promoted, reason="")
    return tmp_path


def tonight(home: Path) -> StageRecord:
    return evaluation(home / "data" / "evaluate@n", "weights of 4", "Ho.", **{"val/bpb": 1.98, "val/bpb.chat.zh": 2.43})


def test_the_champion_is_the_one_that_the_decision_met(home: Path) -> None:
    journal = Journal(home)
    assert [champion_before(journal, "demo", v) for v in (2, 3, 4, 5, None)] == [None, 2, 3, 3, 5]
    journal.note(event="promoted by hand", recipe="demo", version=4)
    journal.note(event="decided", recipe="demo", version=6, promoted=True, reason="")
    assert champion_before(journal, "demo", 6) == 4
    assert champion_before(journal, "other", 6) is None
    journal.note(event="decided", recipe="demo", version=7, promoted=False, reason="", champion=3)
    assert champion_before(journal, "demo", 7) == 3, "moved in the registry itself"


def test_its_scores_are_those_on_the_same_documents(home: Path) -> None:
    scored = tonight(home)
    champion = champion_night(Journal(home), "demo", 4, scored)
    assert champion is not None and champion.scored is not None
    assert (champion.version, champion.scored.figures["val/bpb"], set(champion.records)) == (3, 2.0, {"sft"})
    [reply] = replies_of(scored, champion)
    assert (reply.prompt, reply.now, reply.champion) == ("Hello!", "Ho.", "Hi.")
    [alone] = replies_of(scored, None)
    assert alone.champion is None


def test_a_champion_whose_night_is_gone_is_known_by_its_version(home: Path) -> None:
    champion = champion_night(Journal(home), "demo", 5, tonight(home))
    assert champion and champion.version == 3
    gone = champion_night(Journal(home), "demo", 3, evaluation(home / "data" / "evaluate@x", "w", ""))
    assert gone and (gone.version, dict(gone.records), gone.scored) == (2, {}, None)


def test_the_decision_is_told_as_the_gate_wrote_it(home: Path) -> None:
    scored = tonight(home)
    champion = champion_night(Journal(home), "demo", 4, scored)
    found = comparison_of(DECISION, {}, champion)
    assert (found.champion, found.champion_bpb) == (3, 2.0)
    assert (found.difference_bpb, found.lower_bpb, found.upper_bpb) == (-0.02, -0.03, -0.01)
    assert found.minimum_detectable_bpb == 0.006
    [domain] = domains_of(DECISION, scored, champion)
    assert (domain.name, domain.bpb, domain.champion_bpb, domain.passed, domain.documents) == (
        "chat/zh", 2.43, 2.4, False, 78,
    )  # fmt: skip
    [check] = checks_of(DECISION)
    assert (check.name, check.value, check.limit, check.passed) == ("dead experts", "3", "2", False)
    assert list(budget_of(DECISION)) == [(phrase("budget.alpha"), "0.25"), ("new number", "3")]
    assert audit_told(DECISION) == "a gap of +0.01"


def test_bits_per_byte_have_the_interval_of_the_evaluation(home: Path) -> None:
    scored = tonight(home)
    assert bounds_of(scored) is None, "of an earlier release"
    lines = [{"by": "all", "name": "all", "lower": 1.5, "upper": 2.5}, {"by": "kind", "lower": 0, "upper": 9}]
    (scored.path / INTERVALS).write_text(json.dumps(lines))
    assert bounds_of(scored) == (1.5, 2.5)
    (scored.path / INTERVALS).write_text(json.dumps([{"by": "all", "name": "all", "lower": None, "upper": None}]))
    assert bounds_of(scored) is None


def test_experts_have_the_figures_of_the_evaluation_and_the_drift_that_registering_found() -> None:
    evaluated, registered = {"eval/dead_experts": 1.0, "eval/ece": 0.1}, {"eval/route_drift": 0.2, "export/x": 1.0}
    assert expert_figures_of(evaluated, registered) == {"eval/dead_experts": 1.0, "eval/route_drift": 0.2}


def test_a_decision_of_an_earlier_release_is_told_from_its_figures(home: Path) -> None:
    scored = tonight(home)
    champion = champion_night(Journal(home), "demo", 4, scored)
    old = {"promoted": False, "reason": "", "version": 4}
    found = comparison_of(old, {"promote/difference_bpb": 0.008, "promote/upper_bpb": 0.012}, champion)
    assert (found.difference_bpb, found.lower_bpb, found.upper_bpb) == (0.008, None, 0.012)
    [domain] = domains_of(old, scored, champion)
    assert (domain.name, domain.passed, domain.lower_bpb) == ("chat.zh", None, None)
    assert domain.difference_bpb == pytest.approx(0.03)
    assert list(checks_of(old)) == list(budget_of(old)) == [] and audit_told(old) == ""


@pytest.mark.parametrize(
    ("decision", "ending"),
    [
        ({"promoted": True, "version": 1}, "promoted"),
        ({"promoted": False, "version": 1}, "kept"),
        ({"promoted": False, "version": 1, "refused": True, "waits": True}, "refused"),
        ({"promoted": False, "version": 1, "waits": True}, "waits"),
        ({"promoted": False, "version": None}, "waits"),
    ],
)
def test_how_a_night_ended(decision: dict[str, Any], ending: str) -> None:
    assert verdict(decision) == ending


def test_settings_that_differ_are_bounded_and_those_not_noted_are_told() -> None:
    before = {"params": {f"a{n}": "1" for n in range(30)} | {"promote.mode": "auto"}}
    now = {"params": {f"a{n}": "2" for n in range(30)} | {"promote.mode": "ask", "new": "1"}}
    changes = list(changed_settings(before, now))
    assert len(changes) == 21 and changes[-1].now == "10"
    assert not list(changed_settings(before, before))
    [untold] = changed_settings(None, now)
    assert untold.before == "–"


def test_what_a_training_stage_tells_is_read_back(tmp_path: Path) -> None:
    logs = tmp_path / "sft@1" / "logs"
    logs.mkdir(parents=True)
    record = stage_record(logs.parent, counts={"tokens_seen": 9})
    assert training_of(record).plan_rows == [] and not training_of(record).load
    tell_plan(logs, {"plan/steps": 8.0, "plan/seconds": 10.0})
    tell_outcome(logs, {"outcome/steps": 8.0, "outcome/seconds": 20.0}, [[1.0, 2.0]])
    for _ in range(2):  # steps that are made again tell the same again
        tell_event(logs, 5, ROLL_BACK, "loss jumped")
    with (logs / "events.jsonl").open("a") as stream:
        stream.write('{"step": 7, "ki')
    assert (told_numbers(logs.parent, PLAN)["steps"], told_numbers(logs.parent, OUTCOME)["seconds"]) == (8.0, 20.0)
    assert told_load(logs.parent) == [[1.0, 2.0]]
    assert told_events(logs.parent) == [{"step": 5, "kind": ROLL_BACK, "detail": "loss jumped"}]
    training = training_of(record)
    assert training.plan_rows == [("steps", 8.0, 8.0, 1.0), ("seconds", 10.0, 20.0, 2.0)]
    assert [event.kind for event in training.every_event] == [ROLL_BACK] and training.tokens == 9
