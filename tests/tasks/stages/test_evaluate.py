"""Every validation document of both kinds is scored once, with the model's own tokenizer; none of the train side is."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from benchmarks.data.ours import UntrackedNight
from data.rows.parts import KINDS
from data.sides.read import read_val
from model.exchange.export import export_folder
from model.precision import autocast
from model.tokens.tokenizer import load_tokenizer
from tasks.evaluation.measures.experts import route_drift
from tasks.evaluation.scores import load_model
from tasks.home.contents.packed import open_segments
from tasks.home.contents.scores import (
    CALIBRATION,
    EXPERTS,
    INTERVALS,
    SAMPLES,
    SCORES,
    read_audited,
    read_documents,
    read_replies,
    read_samples,
    read_table,
)
from tasks.home.journal import Journal
from tasks.home.records import StageRecord
from tasks.sources.resolve import Resolved
from tasks.stage import Night
from tasks.stages.evaluate import evaluate
from tasks.tracking.registry import ModelVersion
from tests.tasks.prepared import Prepared
from tests.tasks.rows import stage_record


@pytest.fixture(scope="module")
def night(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Night:
    home = tmp_path_factory.mktemp("home")
    with Journal(home).lease("test") as token:
        pass
    return UntrackedNight(replace(prepared[0], name="evaluated"), "key", home, "", "night", token, Resolved(()))


@pytest.fixture(scope="module")
def rows(prepared: Prepared) -> StageRecord:
    return stage_record(prepared[1].path.parent, digest="rows")


@pytest.fixture(scope="module")
def scored(night: Night, trained: StageRecord, rows: StageRecord, prepared: Prepared) -> StageRecord:
    return evaluate.fn(night, trained, rows, prepared[1], label="challenger")


def test_each_validation_document_is_scored_once(scored: StageRecord, rows: StageRecord, prepared: Prepared) -> None:
    """All that are packed: of some conversations no answer fits into a row."""
    documents, audited = read_documents(scored.path), read_audited(scored.path)
    assert len(audited) and audited.schema == documents.schema
    assert not set(documents["cluster"]) & set(audited["cluster"])
    documents = pl.concat([documents, audited])
    expected = {
        (kind, row_id)
        for kind in KINDS
        for number, row_id in read_val(rows.path, kind).select("row", "row_id").rows()
        if number in set(open_segments(prepared[1], kind, "val")["document"])
    }
    assert {kind for kind, _ in expected} == set(KINDS)
    assert set(documents.select("kind", "row_id").rows()) == expected
    assert len(documents) == len(expected) == scored.counts["documents"] + len(audited)
    assert documents["tokens"].sum() - audited["tokens"].sum() == scored.counts["tokens"]
    assert documents["contaminated_share"].null_count() == 0


def test_a_document_has_the_nats_of_its_own_targets(
    scored: StageRecord, rows: StageRecord, trained: StageRecord, prepared: Prepared
) -> None:
    """A document by itself, straight through the network."""
    network, tokenizer = load_model(trained.path, prepared[1].path)
    network.eval()
    nats = dict(read_documents(scored.path).filter(kind="pretrain").select("row_id", "nats").rows())
    short = read_val(rows.path, "pretrain").filter(pl.col("text").str.len_bytes() < 110)
    assert len(short) > 2
    for row_id, text in short.select("row_id", "text").rows():
        end = tokenizer.token_to_id("<|endoftext|>")
        ids = torch.tensor([[end, *tokenizer.encode(text).ids, end]])
        with torch.no_grad(), autocast(torch.device("cpu"), prepared[0].pretrain.precision):
            logits_BTV = network(ids[:, :-1])
        expected = torch.nn.functional.cross_entropy(logits_BTV[0].float(), ids[0, 1:], reduction="sum")
        assert nats[row_id] == pytest.approx(float(expected), rel=0.02)


def test_scores_are_sums_over_documents(scored: StageRecord) -> None:
    documents = read_documents(scored.path)
    scores = json.loads((scored.path / SCORES).read_text())
    assert scores == {name: value for name, value in scored.figures.items() if name != "eval/tokens_per_s"}
    assert scored.figures["eval/tokens_per_s"] > 0
    of_kind = {kind: documents.filter(kind=kind) for kind in KINDS}
    for name, part in {"val/bpb": documents, **{f"val/bpb.{kind}": of_kind[kind] for kind in KINDS}}.items():
        expected = part["nats"].sum() / math.log(2) / part["num_bytes"].sum()
        assert scores[name] == pytest.approx(expected)
    assert scores["val/loss"] == pytest.approx(documents["nats"].sum() / documents["tokens"].sum())
    assert scores["val/perplexity"] == pytest.approx(math.exp(scores["val/loss"]))
    assert {f"val/bpb.{source}" for source in documents["source"].unique()} <= scores.keys()


def test_each_prompt_has_a_reply(scored: StageRecord, night: Night) -> None:
    assert (scored.path / SAMPLES).exists()
    assert [sample["prompt"] for sample in read_samples(scored.path)] == list(night.recipe.evaluate.prompts)


def test_what_a_model_is_asked_beside_its_score_has_figures_and_files(scored: StageRecord, night: Night) -> None:
    figures, documents = scored.figures, read_documents(scored.path)
    assert {name for name in figures if name.startswith("eval/")} == {
        "eval/ece", "eval/self_ending_share", "eval/repetition_share", "eval/format_valid_share",
        "eval/choice_accuracy", "eval/choice_chance", "eval/dead_experts", "eval/load_entropy", "eval/parameters_m",
        "eval/tokens_per_s", "eval/audit_bpb",
    }  # fmt: skip
    assert len([name for name in figures if "." not in name]) <= 20, (
        "headline keys, beside other stages' on a night's run"
    )
    assert sum(line["tokens"] for line in read_table(scored.path, CALIBRATION)) == documents["tokens"].sum()
    assert [line["layer"] for line in read_table(scored.path, EXPERTS)] == [0, 1]
    intervals = {(line["by"], line["name"]): line for line in read_table(scored.path, INTERVALS)}
    assert intervals["all", "all"]["value"] == pytest.approx(figures["val/bpb"])
    for by in ("kind", "source", "slice"):
        for (entry_by, name), line in intervals.items():
            assert entry_by != by or line["value"] == pytest.approx(figures[f"val/bpb.{name}"])
    assert intervals["share", "eval/choice_accuracy"]["value"] == figures["eval/choice_accuracy"]
    replies = read_replies(scored.path)
    assert len(replies) > len(night.recipe.evaluate.prompts), "held-out conversations are asked, too"
    assert figures["eval/self_ending_share"] == pytest.approx(sum(r["ended"] for r in replies) / len(replies))


def test_nothing_timed_counts_for_the_digest(
    night: Night, trained: StageRecord, rows: StageRecord, prepared: Prepared, scored: StageRecord
) -> None:
    """The same model measured again, under another key."""
    other = replace(night, recipe=night.recipe.with_overrides({"promote.min_bytes": 77}), branch="again")
    again = evaluate.fn(other, trained, rows, prepared[1], label="challenger")
    assert again.path != scored.path and again.files == scored.files


def test_a_model_and_itself_drift_nowhere(scored: StageRecord) -> None:
    drift = route_drift(scored.path, scored.path, 4)
    assert not isinstance(drift, str)
    assert (drift.share, drift.renamed_share) == (0, 0)


def test_a_registered_model_brings_its_own_tokenizer(
    night: Night, trained: StageRecord, rows: StageRecord, prepared: Prepared, scored: StageRecord, tmp_path: Path
) -> None:
    network, tokenizer = load_model(trained.path, prepared[1].path)
    export_folder(network, tokenizer, tmp_path / "model")
    elsewhere = stage_record(tmp_path, digest="other tokens", inputs={"rows": "rows", "base": ""})
    for item in prepared[1].path.iterdir():
        if item.name != "tokenizer.json":
            (tmp_path / item.name).symlink_to(item)
    champion = ModelVersion(1, tmp_path / "model", "exported")
    rescored = evaluate.fn(night, champion, rows, elsewhere, label="champion")
    assert load_tokenizer(champion.path).get_vocab() == tokenizer.get_vocab()
    ours, theirs = (read_documents(record.path).sort("kind", "row_id") for record in (scored, rescored))
    np.testing.assert_allclose(ours["nats"], theirs["nats"], rtol=1e-3)
    assert rescored.headline.startswith("champion")


def test_the_same_model_on_the_same_rows_is_found_done(
    night: Night, trained: StageRecord, rows: StageRecord, prepared: Prepared, scored: StageRecord
) -> None:
    assert evaluate.fn(night, trained, rows, prepared[1], label="champion").path == scored.path
    other = replace(night, recipe=night.recipe.with_overrides({"evaluate.max_new_tokens": 9}))
    assert evaluate.fn(other, trained, rows, prepared[1], label="challenger").path != scored.path
