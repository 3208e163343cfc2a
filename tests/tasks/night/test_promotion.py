"""Which model is promoted, night after night in one home: each recipe has a champion of its own, and what a person did
stays done."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from data.rows.statistics import STATISTICS, NightStatistics
from flows.judge_model import judge_model
from tasks.errors import NightStopped
from tasks.home.contents.registered import read_decision
from tasks.home.contents.scores import AUDITED, DOCUMENTS
from tasks.home.journal import Journal
from tasks.home.records import Content, StageRecord
from tasks.night.by_hand import promote_version
from tasks.night.candidate import Candidate
from tasks.night.conclusion import standing_of
from tasks.recipes.recipe import Recipe
from tasks.sources.resolve import Resolved
from tasks.stage import Night
from tasks.stages.register import register
from tasks.tracking.mlflow_store import Store
from tasks.tracking.registry import Registry
from tasks.tracking.versions import CHALLENGER, CHAMPION, PREVIOUS
from tests.tasks.prepared import Prepared
from tests.tasks.rows import scored_documents, stage_record, write_files

MODEL = "nightschool-tiny"


@dataclass
class Nights:
    """A home whose nights train nothing: each says how many nats its model takes, times those of the first."""

    home: Path
    store: Store
    recipe: Recipe
    trained: StageRecord
    tokens: StageRecord
    factors: dict[str, float] = field(default_factory=dict)
    """Of each model by the digest of its weights."""

    @property
    def registry(self) -> Registry:
        return self.store.registry(self.recipe.name)

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.store.tracking_uri)

    def scored(self, model: str, rows: str, num_documents: int) -> StageRecord:
        rng = np.random.default_rng(0)
        num_bytes = np.ceil(rng.lognormal(5, 0.8, num_documents))
        nats = self.factors[model] * num_bytes * rng.lognormal(0, 0.2, num_documents)
        folder = self.home / "scores" / f"{model} on {rows}"
        folder.mkdir(parents=True, exist_ok=True)
        for name in (DOCUMENTS, AUDITED):
            scored_documents(nats, num_bytes, prefix=f"{rows} {name}").write_parquet(folder / name)
        return stage_record(folder, stage="evaluate", digest=folder.name)

    def evaluate(self, night: Night, model: Content, rows: StageRecord, tokens: StageRecord, label: str) -> StageRecord:
        return self.scored(model.digest, rows.digest, rows.counts["pretrain_val"])

    def judged(
        self, model: str, factor: float, recipe: Recipe | None = None, rows: str = "rows", num_documents: int = 60
    ) -> StageRecord:
        """The night of a model whose nats are `factor` times those of the first."""
        return self.night_of(model, factor, recipe, rows, num_documents)[1]

    def night_of(
        self, model: str, factor: float, recipe: Recipe | None = None, rows: str = "rows", num_documents: int = 60
    ) -> tuple[Night, StageRecord]:
        self.factors[model] = factor
        with Journal(self.home).lease("night") as token:
            run_id = self.store.start_run("night", {})
            chosen = recipe or self.recipe
            night = Night(chosen, model, self.home, self.store.tracking_uri, run_id, token, Resolved(()))
            sides = stage_record(self.home / "x", stage="split", digest=rows, counts={"pretrain_val": num_documents})
            data = stage_record(self.home / "inspect", files={STATISTICS: "s"})
            sft = replace(self.trained, digest=model)
            records = [sides, self.tokens, data, sft, self.scored(model, rows, num_documents)]
            registered = judge_model(Candidate(night, records))
        assert isinstance(registered, StageRecord)
        return night, registered

    def aliases(self, recipe: str = "tiny") -> dict[str, int | None]:
        registry = self.store.registry(recipe)
        return {alias: registry.version_of(alias) for alias in (CHAMPION, CHALLENGER, PREVIOUS)}


@pytest.fixture
def nights(
    tmp_path: Path, store: Store, prepared: Prepared, trained: StageRecord, monkeypatch: pytest.MonkeyPatch
) -> Nights:
    home = tmp_path / "home"
    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    write_files(home / "inspect", {STATISTICS: json.dumps(NightStatistics().as_dict())})
    lived = Nights(home, Store(store.tracking_uri, home), prepared[0], trained, replace(prepared[1], stage="tokens"))
    monkeypatch.setattr("flows.judge_model.evaluate", lived.evaluate)
    monkeypatch.setattr("flows.judge_model.register", register.fn)
    return lived


def decided(record: StageRecord) -> tuple[Any, str]:
    decision = read_decision(record.path)
    return decision["promoted"], str(decision["reason"])


def test_neither_a_toy_recipe_nor_a_night_with_overrides_dethrones_the_good_model_and_rollback_finds_it(
    nights: Nights,
) -> None:
    assert decided(nights.judged("good", 1.0)) == (True, "first model: there was no champion to compare with")

    strict = replace(nights.recipe.promote, min_documents=50, min_bytes=10_000)
    toy = replace(nights.recipe, name="toy", promote=strict)
    promoted, reason = decided(nights.judged("toy model", 0.3, toy, rows="toy rows", num_documents=17))
    assert not promoted
    assert "17 validation documents" in reason and "50 (promote.min_documents)" in reason
    assert nights.aliases("toy") == {CHAMPION: None, CHALLENGER: 1, PREVIOUS: None}

    short = nights.recipe.with_overrides({"pretrain.num_tokens": 64 * 4 * 2})
    promoted, reason = decided(nights.judged("short", 0.8, short))
    assert not promoted and reason.startswith("better: ") and "promote.mode is ask" in reason
    assert nights.aliases() == {CHAMPION: 1, CHALLENGER: 2, PREVIOUS: None}

    assert decided(nights.judged("worse on new rows", 0.9))[0]
    assert nights.aliases() == {CHAMPION: 3, CHALLENGER: 2, PREVIOUS: 1}
    assert promote_version("tiny", None).startswith(f"champion is version 1, before it was 3 ({MODEL})")
    assert nights.aliases() == {CHAMPION: 1, CHALLENGER: 2, PREVIOUS: 3}
    assert nights.aliases("toy")[CHAMPION] is None


def test_a_night_found_done_tells_then_and_now(nights: Nights) -> None:
    nights.judged("one", 1.0)
    fresh = nights.night_of("two", 0.9)
    assert standing_of(*fresh) == "", "what was decided just now holds"
    assert fresh[1].headline == "version 2, promoted"
    promote_version("tiny", None)
    night, again = nights.night_of("two", 0.9)
    assert again.reused and read_decision(again.path)["promoted"], "as it was decided then"
    now = standing_of(night, again)
    assert "version 2 was rolled back by hand" in now and "to version 1; champion now is version 1 (by hand" in now
    promote_version("tiny", 2)
    assert standing_of(night, again).startswith("it is the champion now (by hand")
    nights.client.delete_model_version(MODEL, "2")
    assert standing_of(night, again) == "version 2 was deleted in the registry; no version is champion now"


def test_what_was_rolled_back_comes_back_by_a_person_alone(nights: Nights) -> None:
    nights.judged("one", 1.0)
    nights.judged("two", 0.9)
    promote_version("tiny", None)
    decide_anew = replace(nights.recipe, promote=replace(nights.recipe.promote, seed=2))
    promoted, reason = decided(nights.judged("two", 0.9, decide_anew))
    assert not promoted
    assert reason.startswith("these weights are those of version 2, which was rolled back by hand")
    with pytest.raises(
        NightStopped, match=r"version 2, was itself rolled back .* python -m flows promote tiny VERSION"
    ):
        promote_version("tiny", None)
    assert nights.aliases() == {CHAMPION: 1, CHALLENGER: 3, PREVIOUS: 2}

    promote_version("tiny", 3)  # the same weights; a person wants them now
    assert nights.registry.rolled_back("two") is None
    promote_version("tiny", 1)  # an older one by its number is a rollback, too
    withdrawn = nights.registry.rolled_back("two")
    assert withdrawn is not None and withdrawn.version == 3
    assert decided(nights.judged("three", 0.8))[0], "other weights are judged as ever"


def test_going_back_from_a_deleted_champion_says_that_there_is_none_and_what_can_be_done(nights: Nights) -> None:
    nights.judged("one", 1.0)
    nights.judged("two", 0.9)
    promote_version("tiny", None)
    nights.client.delete_model_version(MODEL, "1")
    with pytest.raises(NightStopped) as stop:
        promote_version("tiny", None)
    said = str(stop.value)
    assert "version 2, was itself rolled back by hand" in said
    assert f"there is no champion now: version 1 of {MODEL} was the champion and was deleted in the registry" in said
    assert said.endswith("python -m flows promote tiny VERSION; its versions are 2")
    nights.client.delete_model_version(MODEL, "2")
    with pytest.raises(NightStopped, match=r"no champion now: version 1 .*it has no version\. Recipes with .*: tiny"):
        promote_version("tiny", None)


def test_what_a_person_does_is_noted_beside_what_the_night_decided(nights: Nights) -> None:
    first = decided(nights.judged("one", 1.0))[1]
    nights.judged("two", 0.9)
    promote_version("tiny", 1)
    tags = nights.client.get_model_version(MODEL, "1").tags
    assert tags["nightschool.decision"] == first == "first model: there was no champion to compare with"
    assert tags["nightschool.by_hand"].startswith("by hand, ")
    assert tags["nightschool.by_hand"].endswith(", in place of version 2")
    assert "nightschool.by_hand" not in nights.client.get_model_version(MODEL, "2").tags
    nights.registry.make_champion(1, "a night said so again")
    standing = nights.registry.standing()
    assert standing is not None and standing.note == "a night said so again", "the newest reason is the one told"


def test_a_rollback_in_the_registry_itself_is_one(nights: Nights) -> None:
    nights.judged("one", 1.0)
    nights.judged("two", 0.9)
    nights.client.set_registered_model_alias(MODEL, CHAMPION, "1")
    night, again = nights.night_of("two", 0.9)
    assert again.reused
    told = "version 2 was rolled back in the registry itself, to version 1; champion now is version 1"
    assert standing_of(night, again).startswith(told)
    decide_anew = replace(nights.recipe, promote=replace(nights.recipe.promote, seed=2))
    assert not decided(nights.judged("two", 0.9, decide_anew))[0]


@pytest.mark.parametrize("removed", ["version", "alias", "model"])
def test_a_champion_that_somebody_removed_is_no_first_model(nights: Nights, removed: str) -> None:
    nights.judged("one", 1.0)
    nights.judged("two", 0.9)
    if removed == "version":
        nights.client.delete_model_version(MODEL, "2")
    elif removed == "alias":
        nights.client.delete_registered_model_alias(MODEL, CHAMPION)
    else:
        nights.client.delete_registered_model(MODEL)
    promoted, reason = decided(nights.judged("three", 0.8))
    assert not promoted
    assert f"version 2 of {MODEL} was the champion" in reason
    told = {
        "version": "was the champion and was deleted in the registry",
        "alias": "was the champion and had the alias champion taken from it in the registry",
        "model": "was the champion and is not in this registry, which has no model",
    }
    assert told[removed] in reason
    assert nights.aliases()[CHAMPION] is None
    newest = 1 if removed == "model" else 3
    promote_version("tiny", newest)
    assert decided(nights.judged("four", 0.7))[0]


def test_a_champion_whose_files_are_gone_is_told_with_the_cure(nights: Nights) -> None:
    nights.judged("one", 1.0)
    files = nights.registry.champion()
    assert files is not None
    shutil.rmtree(files.path)
    promoted, reason = decided(nights.judged("two", 0.9))
    assert not promoted
    assert f"the files of version 1 of {MODEL}, the champion, are gone" in reason
    assert "python -m flows promote tiny VERSION" in reason


def test_the_same_weights_in_another_version_leave_the_previous_champion(nights: Nights) -> None:
    nights.judged("one", 1.0)
    nights.judged("two", 0.9)
    again = nights.recipe.with_overrides({"promote.resamples": 700, "promote.mode": "auto"})
    assert decided(nights.judged("two", 0.9, again))[0]
    assert (nights.aliases()[CHAMPION], nights.aliases()[PREVIOUS]) == (3, 1)
    assert "champion is version 1" in promote_version("tiny", None)


def test_a_champion_of_other_data_is_no_comparison(nights: Nights) -> None:
    nights.judged("one", 1.0)
    salted = replace(nights.recipe, split=replace(nights.recipe.split, salt="pepper"))
    promoted, reason = decided(nights.judged("two", 0.5, salted))
    assert not promoted
    assert "the champion is version 1" in reason and "split.salt was 'nightschool' then and is 'pepper' now" in reason
    assert not (nights.home / "scores" / "one on other rows").exists()
    promote_version("tiny", 2)
    assert decided(nights.judged("three", 0.4, salted))[0], "a person said so once"


def test_a_champion_of_another_recipe_is_no_comparison(nights: Nights) -> None:
    nights.judged("toy model", 1.0, replace(nights.recipe, name="toy"))
    nights.client.create_registered_model(MODEL)
    nights.client.copy_model_version("models:/nightschool-toy/1", MODEL)
    nights.registry.set_alias(CHAMPION, 1)
    promoted, reason = decided(nights.judged("one", 0.5))
    assert not promoted
    assert "it is a model of recipe 'toy', and this night is of 'tiny'" in reason


def test_two_recipes_that_train_the_same_weights_have_a_version_each(nights: Nights) -> None:
    nights.judged("one", 1.0)
    assert decided(nights.judged("one", 1.0, replace(nights.recipe, name="twin-brother")))[0]
    assert nights.registry.recipes() == ["tiny", "twin-brother"]
    with pytest.raises(NightStopped, match="name the recipe: tiny, twin-brother"):
        promote_version(None, 1)


def test_a_person_names_what_there_is(nights: Nights) -> None:
    with pytest.raises(NightStopped, match="no recipe has a registered model"):
        promote_version(None, 1)
    nights.judged("one", 1.0)
    with pytest.raises(NightStopped, match="no previous champion of nightschool-tiny"):
        promote_version(None, None)
    with pytest.raises(
        NightStopped, match=r"no version 9 of nightschool-tiny; its versions are 1\n.*registered model: tiny"
    ):
        promote_version(None, 9)
    with pytest.raises(NightStopped, match=r"no version 1 of nightschool-unknown.*\n.*registered model: tiny"):
        promote_version("unknown", 1)
    assert promote_version(None, 1) == f"champion is version 1, before it was 1 ({MODEL})"
    assert nights.registry.rolled_back_version(1) is None
