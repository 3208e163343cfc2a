"""What is registered, which alias moves and why: one decision a model, on the documents that both models scored."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.rows.statistics import STATISTICS, NightStatistics
from data.sides.slices import Slice, SliceVersion, read_slices, validation_version, write_slices
from model.exchange.hugging_face import import_hugging_face
from tasks.errors import NightBusy, NightStopped
from tasks.evaluation.past import past_decisions
from tasks.home.contents.registered import EXPORT, TRAINING_DATA, read_decision
from tasks.home.contents.scores import AUDITED, DOCUMENTS
from tasks.home.journal import Journal
from tasks.home.records import StageRecord
from tasks.sources.resolve import Resolved
from tasks.stage import Night
from tasks.stages.register import register
from tasks.tracking.mlflow_store import Store
from tasks.tracking.registry import ModelVersion
from tasks.tracking.versions import CHALLENGER, CHAMPION, PREVIOUS
from tasks.training.trained import load_trained
from tests.tasks.prepared import Prepared
from tests.tasks.rows import scored_documents, stage_record, write_files

NUM_DOCUMENTS = 60

LEARNT = json.dumps(NightStatistics().as_dict())


@pytest.fixture
def night(prepared: Prepared, tmp_path: Path, store: Store) -> Iterator[Night]:
    with Journal(tmp_path / "home").lease("test") as token:
        run_id = store.start_run("night", {})
        yield Night(prepared[0], "key", tmp_path / "home", store.tracking_uri, run_id, token, Resolved(()))


@pytest.fixture
def data(tmp_path: Path) -> StageRecord:
    write_files(tmp_path / "inspect", {STATISTICS: LEARNT, "page.html": "<p>"})
    return stage_record(tmp_path / "inspect", files={STATISTICS: "s", "page.html": "p"})


def scored(folder: Path, factor: float) -> StageRecord:
    """An evaluation in which every document takes `factor` times the same nats; none is weighed down for its length."""
    rng = np.random.default_rng(0)
    num_bytes = np.ceil(rng.uniform(100, 300, NUM_DOCUMENTS))
    documents = scored_documents(factor * num_bytes * rng.lognormal(0, 0.2, NUM_DOCUMENTS), num_bytes)
    folder.mkdir(parents=True)
    documents.write_parquet(folder / DOCUMENTS)
    scored_documents(factor * num_bytes[:9], num_bytes[:9], prefix="audited").write_parquet(folder / AUDITED)
    return stage_record(folder, digest=f"scores at {factor}")


def registered(
    night: Night, trained: StageRecord, prepared: Prepared, data: StageRecord, factor: float, champion: float | None
) -> StageRecord:
    """Register a model of its own name whose nats are `factor`, beside a champion's."""
    root = night.home.parent / f"{factor} beside {champion}"
    champion_scored = None if champion is None else scored(root / "champion", champion)
    champion_in_use = None if champion is None else night.registry.champion() or ModelVersion(9, root, "another model")
    model = replace(trained, digest=f"model at {factor}")
    return register.fn(
        night, model, prepared[1], scored(root / "challenger", factor), champion_in_use, champion_scored, data
    )


def aliases(store: Store) -> dict[str, int | None]:
    return {alias: store.registry("tiny").version_of(alias) for alias in (CHAMPION, CHALLENGER, PREVIOUS)}


def test_the_better_second_model_is_promoted_and_the_worse_third_is_not(
    night: Night, trained: StageRecord, prepared: Prepared, data: StageRecord, store: Store
) -> None:
    first = registered(night, trained, prepared, data, 1.0, None)
    decision = read_decision(first.path)
    assert {"promoted": True, "version": 1, "waits": False, "refused": False, "clearly_worse": False}.items() <= (
        decision.items()
    )
    assert decision["reason"] == "first model: there was no champion to compare with"
    assert (decision["alpha"], decision["difference_bpb"], decision["domains"]) == (None, None, [])
    assert "promote/difference_bpb" not in first.figures
    assert aliases(store) == {CHAMPION: 1, CHALLENGER: None, PREVIOUS: None}

    second = registered(night, trained, prepared, data, 0.9, 1.0)
    decision = read_decision(second.path)
    assert (decision["promoted"], decision["version"], second.counts) == (True, 2, {"version": 2})
    assert str(decision["reason"]).startswith("better: ")
    assert second.figures["promote/difference_bpb"] < second.figures["promote/upper_bpb"] < 0
    assert second.figures["promote/promoted"] == 1
    assert aliases(store) == {CHAMPION: 2, CHALLENGER: None, PREVIOUS: 1}

    third = registered(night, trained, prepared, data, 1.1, 0.9)
    assert read_decision(third.path)["promoted"] is False
    assert third.figures["promote/upper_bpb"] > third.figures["promote/difference_bpb"] > 0
    assert third.headline == "version 3, not promoted"
    assert aliases(store) == {CHAMPION: 2, CHALLENGER: 3, PREVIOUS: 1}
    decided = [json.loads(line) for line in (night.home / "journal.jsonl").read_text().splitlines()]
    events = [(e["version"], e["promoted"]) for e in decided if e["event"] == "decided"]
    assert events == [(1, True), (2, True), (3, False)]


def test_what_a_comparison_spends_and_audits_is_in_the_journal_and_the_decision(
    night: Night, trained: StageRecord, prepared: Prepared, data: StageRecord
) -> None:
    registered(night, trained, prepared, data, 1.0, None)
    second = registered(night, trained, prepared, data, 0.9, 1.0)
    past = past_decisions(night.journal.entries(), night.recipe.name)
    assert [(d.promoted, d.alpha) for d in past] == [(True, pytest.approx(1 / 360))], "the first model spent nothing"
    lines = [entry for entry in night.journal.entries() if entry.get("event") == "decided"]
    assert [(line["champion"], line["losses"]) for line in lines] == [(None, {}), (1, {
        "max_pretrain_regression_share": 0.0, "max_more_dead_experts": 0.0, "max_repetition_rise": 0.0,
        "max_self_ending_fall": 0.0, "pretrain/en": 0.0,
    })]  # fmt: skip
    decision = read_decision(second.path)
    audit, budget = decision["audit"], decision["budget"]
    assert isinstance(audit, dict) and isinstance(budget, dict)
    assert audit["difference_bpb"] == past[0].audit_difference_bpb == pytest.approx(-0.1 / math.log(2), rel=1e-4)
    assert audit["gap_bpb"] == pytest.approx(past[0].audit_difference_bpb - past[0].difference_bpb)
    assert (budget["alpha"], budget["spent_in_a_year"]) == (past[0].alpha, 0)
    assert decision["minimum_detectable_bpb"] is not None
    names = [check["name"] for check in decision["checks"]]  # type: ignore[attr-defined]
    assert {"max_dead_experts", "max_more_dead_experts", "export/route_agreement"} & set(names) == {
        "max_more_dead_experts", "export/route_agreement",
    }  # fmt: skip
    third = registered(night, trained, prepared, data, 1.1, 0.9)
    assert read_decision(third.path)["clearly_worse"] is True


def test_scores_on_another_version_of_the_validation_side_are_not_compared(
    night: Night, trained: StageRecord, prepared: Prepared, data: StageRecord
) -> None:
    evaluations = [scored(night.home.parent / name, factor) for name, factor in (("new", 0.5), ("old", 1.0))]
    for evaluation, documents in zip(evaluations, (60, 50), strict=True):
        version = SliceVersion(
            number=1, digest=f"of {documents}", documents=documents, num_bytes=9_000, generation=0
        )  # fmt: skip
        write_slices(evaluation.path, {"chat/chat": Slice(versions=(version,), sources=("talk",), full=False)})
    champion = ModelVersion(9, night.home, "another model")
    record = register.fn(night, trained, prepared[1], evaluations[0], champion, evaluations[1], data)
    decision = read_decision(record.path)
    ours, theirs = (str(validation_version(read_slices(evaluation.path))) for evaluation in evaluations)
    assert not decision["promoted"] and decision["waits"] and decision["validation"] == ours != theirs
    assert f"scored on validation {ours}, the champion on {theirs}" in str(decision["reason"])
    assert not {"promote/difference_bpb", "promote/upper_bpb"} & record.figures.keys(), "there is no number"


def test_the_difference_is_challenger_minus_champion(
    night: Night, trained: StageRecord, prepared: Prepared, data: StageRecord
) -> None:
    record = registered(night, trained, prepared, data, 1.5, 1.0)
    documents = [scored(night.home / str(factor), factor) for factor in (1.5, 1.0)]
    nats, num_bytes = [], 0
    for evaluation in documents:
        import polars as pl

        table = pl.read_parquet(evaluation.path / DOCUMENTS)
        nats.append(table["nats"].sum())
        num_bytes = table["num_bytes"].sum()
    expected = (nats[0] - nats[1]) / math.log(2) / num_bytes
    assert record.figures["promote/difference_bpb"] == pytest.approx(expected, rel=1e-5)


def test_the_export_is_the_model_with_the_statistics_of_its_data(
    night: Night, trained: StageRecord, prepared: Prepared, data: StageRecord, store: Store
) -> None:
    record = registered(night, trained, prepared, data, 1.0, None)
    assert (record.path / EXPORT / TRAINING_DATA).read_text() == LEARNT
    ours, exported = load_trained(trained.path).state_dict(), import_hugging_face(record.path / EXPORT).state_dict()
    assert all((ours[name] == exported[name]).all() for name in ours)
    holder = store.registry("tiny").holder_of(CHAMPION)
    assert holder is not None
    assert (holder.version, holder.digest) == (1, "model at 1.0")
    assert (holder.path / TRAINING_DATA).read_text() == LEARNT
    assert record.figures["export/logit_difference"] < 1e-3
    assert record.figures["export/route_agreement"] > 0.99


def test_a_decision_is_made_once_whoever_is_champion_then(
    night: Night, trained: StageRecord, prepared: Prepared, data: StageRecord, store: Store
) -> None:
    first = registered(night, trained, prepared, data, 1.0, None)
    model, evaluation = replace(trained, digest="model at 1.0"), stage_record(Path("x"), digest="scores at 1.0")
    page = replace(data, digest="another page", files=data.files | {"page.html": "other"})
    champion, scores = ModelVersion(1, Path("whoever"), "another"), stage_record(Path("whoever"), digest="another")
    again = register.fn(night, model, prepared[1], evaluation, champion, scores, page)
    assert again.reused
    assert again.path == first.path
    assert store.registry("tiny").has_version(1)
    assert not store.registry("tiny").has_version(2)


def test_the_champions_own_weights_are_no_first_model(
    night: Night, trained: StageRecord, prepared: Prepared, data: StageRecord, store: Store
) -> None:
    """A night killed between registration and record, or another chat template: the weights are in use already."""
    registered(night, trained, prepared, data, 1.0, None)
    champion, model = night.registry.champion(), replace(trained, digest="model at 1.0")
    tokens = replace(prepared[1], digest="tokens of another chat template")
    again = register.fn(night, model, tokens, scored(night.home / "again", 1.0), champion, None, data)
    decision = read_decision(again.path)
    assert (decision["promoted"], decision["version"]) == (True, 2)
    assert decision["reason"] == "these weights are the champion's, version 1: the alias moves to them"
    assert aliases(store) == {CHAMPION: 2, CHALLENGER: None, PREVIOUS: None}


def test_a_night_that_was_overtaken_registers_nothing(
    night: Night, trained: StageRecord, prepared: Prepared, data: StageRecord, store: Store
) -> None:
    with pytest.raises(NightBusy, match="overtaken"):
        registered(replace(night, token=night.token - 1), trained, prepared, data, 1.0, None)
    assert not store.registry("tiny").has_version(1)


def test_an_export_that_computes_otherwise_is_not_registered(
    night: Night, trained: StageRecord, prepared: Prepared, data: StageRecord, store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("tasks.evaluation.measures.parity.MAX_LOGIT_DIFFERENCE", -1.0)
    with pytest.raises(NightStopped, match="transformers computes other results"):
        registered(night, trained, prepared, data, 1.0, None)
    assert not store.registry("tiny").has_version(1)
