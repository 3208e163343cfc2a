"""Nights that bring another kind of text: the validation side grows in versions, and both models are scored on the
newest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from data.rows.parts import KINDS
from data.sides.read import read_val
from data.sides.slices import read_slices, validation_version
from flows.judge_model import judge_model
from tasks.home.contents.registered import read_decision
from tasks.home.contents.scores import read_audited, read_documents
from tasks.home.journal import Journal
from tasks.home.records import Content, StageRecord
from tasks.night.candidate import Candidate
from tasks.night.conclusion import validation_told
from tasks.night.opening import known_pieces
from tasks.recipes.recipe import Recipe
from tasks.sources.resolve import resolve
from tasks.stage import Night
from tasks.stages.deduplicate import deduplicate
from tasks.stages.evaluate import evaluate
from tasks.stages.inspect import PAGE, inspect
from tasks.stages.register import register
from tasks.stages.split import split
from tasks.stages.tokens import tokens
from tasks.stages.validate import validate
from tasks.tracking.mlflow_store import Store
from tasks.tracking.tracker import VALIDATION
from tests.tiny_recipe import tiny_recipe

pytestmark = pytest.mark.usefixtures("without_prefect")


def prose(count: int, start: int = 0) -> Iterator[str]:
    """Rows that are like nothing else, in words."""
    for number in range(start, start + count):
        yield json.dumps({"text": " ".join(f"word{number * 31 + k * k}" for k in range(20))}) + "\n"


def source_code(count: int) -> Iterator[str]:
    """Rows of another domain."""
    for number in range(count):
        lines = "\n".join(f"    value_{number}_{k} = compute_{number * 7 + k}(value, {k})" for k in range(4))
        yield json.dumps({"text": f"import os\n\ndef step_{number}(value):\n{lines}\n    return value\n"}) + "\n"


@dataclass
class Nights:
    """A home whose nights prepare, score and judge as nights do; the weights are those of one short training."""

    home: Path
    store: Store
    recipe: Recipe
    trained: StageRecord
    champions: list[StageRecord]
    """Evaluations of the champion, as they were asked for."""

    def night(self, model: str) -> Candidate:
        """All stages but training; what was decided is the last record."""
        journal = Journal(self.home)
        raw = resolve(self.recipe.sources, self.home, known_pieces(journal, self.recipe), 0.0)
        with journal.lease("test") as lease:
            parent = self.store.start_run("night", {})
            night = Night(self.recipe, model, self.home, self.store.tracking_uri, parent, lease, raw)
            validated = validate.fn(night)
            distinct = deduplicate.fn(night, validated)
            sides = split.fn(night, distinct)
            packed = tokens.fn(night, sides)
            seen = inspect.fn(night, validated, distinct, sides, packed, None, "")
            weights = replace(self.trained, digest=model)
            scored = evaluate.fn(night, weights, sides, packed, label="challenger")
            records = [validated, distinct, sides, packed, seen, weights, scored]
            registered = judge_model(Candidate(night, records))
        assert isinstance(registered, StageRecord)
        return Candidate(night, [*records, registered])

    def evaluate(self, night: Night, model: Content, rows: StageRecord, tokens: StageRecord, label: str) -> StageRecord:
        self.champions.append(evaluate.fn(night, model, rows, tokens, label))
        return self.champions[-1]


@pytest.fixture
def nights(tmp_path: Path, store: Store, trained: StageRecord, monkeypatch: pytest.MonkeyPatch) -> Nights:
    recipe = tiny_recipe(tmp_path / "raw")
    lived = Nights(tmp_path, store, recipe, trained, [])
    text_of(lived).write_text("".join(prose(600)))
    monkeypatch.setattr("flows.judge_model.evaluate", lived.evaluate)
    monkeypatch.setattr("flows.judge_model.register", register.fn)
    return lived


def text_of(nights: Nights) -> Path:
    return Path(nights.recipe.sources[0].location)


def documents(rows: StageRecord) -> list[tuple[str, str]]:
    """(kind, name) of the validation documents in their order, kind by kind."""
    return [(kind, name) for kind in KINDS for name in read_val(rows.path, kind)["row_id"]]


def test_the_validation_side_grows_and_both_models_are_scored_on_all_of_it(nights: Nights) -> None:
    first = nights.night("one")
    assert read_slices(first.rows.path).keys() == {"pretrain/other", "chat/chat"}
    with text_of(nights).open("a") as stream:
        stream.writelines([*source_code(250), *prose(100, 600)])
    second = nights.night("two")

    before, after = documents(first.rows), documents(second.rows)
    for kind in KINDS:
        mine = [name for of_kind, name in before if of_kind == kind]
        assert [name for of_kind, name in after if of_kind == kind][: len(mine)] == mine
    assert len(after) > len(before) + 20
    slices = read_slices(second.rows.path)
    assert slices["pretrain/code"].newest.documents > 10, "text of a kind that came later has its slice"
    assert [version.number for version in slices["pretrain/other"].versions] == [1, 2]
    assert slices["pretrain/other"].versions[:1] == read_slices(first.rows.path)["pretrain/other"].versions

    [champion] = nights.champions
    challenger = second.scored
    assert not champion.reused and champion.inputs["model"] != challenger.inputs["model"]
    assert champion.inputs["rows"] == challenger.inputs["rows"] != first.scored.inputs["rows"]
    version = validation_version(slices)
    assert version.number == 2
    key = ["kind", "row_id"]
    scored = [read_documents(record.path).select(key).sort(key) for record in (champion, challenger)]
    assert scored[0].equals(scored[1]) and scored[0].height > read_documents(first.scored.path).height + 20
    decision = read_decision(second.records[-1].path)
    assert decision["validation"] == str(version)
    assert f"on {scored[0].height} documents" in str(decision["reason"])

    client = MlflowClient(nights.store.tracking_uri)
    for record in (champion, challenger, second.rows, second.records[-1]):
        assert client.get_run(record.run_id).data.tags[VALIDATION] == str(version)
    run = client.get_run(challenger.run_id)
    assert run.data.params["slice.pretrain.code"] == str(slices["pretrain/code"].newest)
    [dataset] = [used.dataset for used in run.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("validation v2", version.digest)
    assert f"of validation {version}" in challenger.headline
    told = validation_told(second)
    assert told[0].startswith(f"version {version}: {version.documents} documents, ")
    code, prose_ = (slices[name].versions for name in ("pretrain/code", "pretrain/other"))
    assert (
        f"pretrain/code +{code[0].documents}, pretrain/other +{prose_[1].documents - prose_[0].documents};" in told[1]
    )

    third = nights.night("two")
    made_before = {record.stage: record.digest for record in second.records}
    assert all(record.reused for record in third.records if record.stage != "sft")
    assert {record.stage: record.digest for record in third.records} == made_before
    assert nights.champions[-1].reused and nights.champions[-1].path == champion.path


def test_the_same_version_is_scored_once_whatever_comes_to_the_train_side(nights: Nights) -> None:
    nights.recipe = replace(
        nights.recipe,
        split=replace(nights.recipe.split, val_bytes_per_slice=1_000),
        promote=replace(nights.recipe.promote, min_documents=2),
    )
    nights.night("one")
    first = nights.night("two")
    assert read_slices(first.rows.path)["pretrain/other"].full
    with text_of(nights).open("a") as stream:
        stream.writelines(prose(100, 600))
    second = nights.night("two")
    assert not second.rows.reused and documents(second.rows) == documents(first.rows)
    assert second.rows.counts["held_out_unused"] > first.rows.counts["held_out_unused"]
    assert second.scored.reused and second.scored.path == first.scored.path
    assert len(nights.champions) == 2 and len({record.path for record in nights.champions}) == 1


def test_too_little_validation_text_is_told_before_anything_is_trained(
    nights: Nights, caplog: pytest.LogCaptureFixture
) -> None:
    enough = nights.recipe
    nights.recipe = replace(enough, promote=replace(enough.promote, min_documents=150))
    with caplog.at_level("WARNING", "nightschool"):
        night = nights.night("one")
    scored = read_documents(night.scored.path)
    count, size = (scored["num_bytes"] > 0).sum(), scored["num_bytes"].sum()
    audited = read_audited(night.scored.path)
    for what, every in (("documents", count + len(audited)), ("bytes", size + audited["num_bytes"].sum())):
        assert sum(night.tokens.counts[f"{kind}_val_{what}"] for kind in KINDS) == every
    assert 10 < count < 150 and len(audited)
    sentence = (
        f"{count} validation documents with {size:,} bytes of text that is scored, needed 150 (promote.min_documents) "
        "and 500 (promote.min_bytes); add data, raise split.val_share"
    )
    assert sentence in caplog.text
    assert "too little validation text to promote by" in night.data.headline
    assert sentence in (night.data.path / PAGE).read_text(encoding="utf-8")
    assert any(sentence in told for told in validation_told(night))
    assert sentence in str(read_decision(night.records[-1].path)["reason"])

    nights.recipe = enough
    caplog.clear()
    night = nights.night("one")
    assert "too little" not in caplog.text + night.data.headline + " ".join(validation_told(night))
