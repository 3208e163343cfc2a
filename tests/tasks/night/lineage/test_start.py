"""What a night begins with, and where the trunk is when it has ended: in a home whose nights train nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from data.rows.piece import Piece
from model.files import write_json
from tasks.errors import NightBusy
from tasks.home.contents.pretrained import READING, TRUNK
from tasks.home.digests import plain
from tasks.home.journal import Journal
from tasks.home.notes import LINEAGE, START, add_to_note, note_path, read_note
from tasks.home.records import StageRecord
from tasks.home.trunk import Start, Trunk, read_trunk, trunk_path
from tasks.night.candidate import Candidate
from tasks.night.conclusion import conclude, note_made
from tasks.night.incumbent import follow_other_hands
from tasks.night.lineage.naming import Identity
from tasks.night.lineage.start import decided, move_trunk, with_start
from tasks.night.lineage.trunks import back_by_hand
from tasks.recipes.recipe import Recipe, recipe_from
from tasks.sources.resolve import LocatedPiece, Resolved
from tasks.stage import Night
from tasks.tracking.mlflow_store import Store
from tasks.tracking.registry import Registry
from tests.tasks.rows import stage_record
from tests.tiny_recipe import tiny_content

WORSE = "Not promoted (version 2): worse"


@dataclass
class Nights:
    """A home, and the tracking store that its nights report to."""

    home: Path
    store: Store
    recipe: Recipe
    token: int = 0
    champion: int | None = None
    """What the registry says."""

    def opened(
        self, key: str, data: str, recipe: Recipe | None = None, replaced: Mapping[str, str] | None = None
    ) -> Night:
        """A night whose note is written as its opening does."""
        recipe = recipe or self.recipe
        piece = Piece(source="text", label=data, start=0, end=9, first_line=1, num_lines=1, digest=data)
        raw = Resolved((LocatedPiece(piece, recipe.sources[0], self.home / data),))
        identity = Identity(
            params={}, data=data, code="c", started=f"2026-11-{10 + len(self.notes):02d}T01:30:00+00:00"
        )
        run_id = self.store.start_run("night", {})
        path = note_path(self.home, recipe.name, key)
        if not path.exists():
            content = {"run_id": run_id, "key": key, "identity": identity.as_note(), "replaced": dict(replaced or {})}
            write_json(path, content)
        return Night(recipe, key, self.home, self.store.tracking_uri, run_id, self.token, raw)

    @property
    def notes(self) -> list[Path]:
        return list((self.home / "nights").glob("*.json"))

    def pretrained(self, name: str, recipe: Recipe | None = None, **noted: Any) -> StageRecord:
        """The folder of a pretrain stage, with all but its weights."""
        recipe, folder = recipe or self.recipe, self.home / "data" / f"pretrain@{name}"
        for part in (TRUNK, "checkpoints"):
            (folder / part).mkdir(parents=True)
        write_json(folder / READING, {"nights": 1, "tokenizer": "t", **noted})
        config = {"model": plain(recipe.model), "train": plain(recipe.pretrain)}
        record = stage_record(folder, stage="pretrain", digest=name, config=config)
        record.write(folder)
        return record

    def begun(self, night: Night, drift: float = 0.0, tokenizer: str = "t") -> Night:
        return with_start(night, *self.looked_at(drift, tokenizer))

    def looked_at(self, drift: float = 0.0, tokenizer: str = "t") -> tuple[StageRecord, StageRecord]:
        tokens = stage_record(self.home / "tokens", files={"tokenizer.json": tokenizer})
        return tokens, stage_record(self.home / "inspect", figures={"data/drift_psi_max": drift})

    def ended(self, night: Night, record: StageRecord, version: int, clearly_worse: str = "") -> str:
        note = note_path(self.home, night.recipe.name, night.key)
        note_made(note, [record], {"version": version}, 2.0)
        return move_trunk(night, record, clearly_worse)

    def lived(self, key: str, data: str, version: int, **more: Any) -> Night:
        """A whole night."""
        night = self.begun(self.opened(key, data))
        self.ended(night, self.pretrained(key), version, **more)
        return night

    def trunk(self) -> Trunk:
        found = read_trunk(self.home, self.recipe.name)
        assert found is not None
        return found


@pytest.fixture
def nights(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Nights:
    recipe = recipe_from(tiny_content({"text": Path("/text.jsonl"), "chat": Path("/chat.jsonl")}))
    made = Nights(tmp_path / "home", Store(store.tracking_uri, tmp_path / "home"), recipe)
    monkeypatch.setattr(Registry, "version_of", lambda _, alias: made.champion)
    return made


def told(night: Night) -> tuple[str, str]:
    return night.start.how, night.start.parent


def test_each_night_goes_on_with_the_trunk_of_the_last(nights: Nights) -> None:
    first = nights.lived("one", "rows", 1)
    assert told(first) == ("scratch", "")
    assert "no night of this recipe has left a trunk" in first.start.reason
    second = nights.lived("two", "more rows", 2)
    assert told(second) == ("trunk", "pretrain@one")
    assert told(nights.begun(nights.opened("three", "even more"))) == ("trunk", "pretrain@two")


def test_a_trunk_that_cannot_be_read_is_told(nights: Nights) -> None:
    nights.lived("one", "rows", 1)
    trunk_path(nights.home, "tiny").write_text("{")
    night = nights.begun(nights.opened("two", "more rows"))
    assert told(night) == ("scratch", "")
    assert str(trunk_path(nights.home, "tiny")) in night.start.reason and "cannot be read" in night.start.reason


def test_another_try_on_the_same_rows_begins_as_the_last_did_and_says_so_once(nights: Nights) -> None:
    nights.lived("one", "rows", 1)
    nights.lived("two", "more rows", 2)
    for key in ("three", "four"):
        tried = nights.lived(key, "more rows", 3)
        assert told(tried) == ("trunk", "pretrain@one")
        assert tried.start.reason.count("begins as the last night did") == 1


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "model": ({"model.hidden_size": 64}, {}, "another one than pretrain@one has (hidden_size)"),
    "tokenizer": ({}, {"tokenizer": "other"}, "the tokenizer is another one"),
    "age": ({"pretrain.restart_every_nights": 1}, {}, "1 nights old (pretrain.restart_every_nights)"),
    "drift": ({"inspect.restart_drift_psi": 0.5}, {"drift": 0.75}, "drifted by 0.75 from the champion's, over 0.5"),
}


@pytest.mark.parametrize("rows", ["new rows", "more rows"], ids=["new", "those of the last night"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_the_trunk_begins_from_scratch(nights: Nights, change: str, rows: str) -> None:
    nights.lived("one", "rows", 1)
    nights.lived("two", "more rows", 2)
    if rows == "new rows":
        shutil.rmtree(nights.home / "data" / "pretrain@two")
        nights.trunk()
        replace(nights.trunk(), folder="pretrain@one").write(nights.home, "tiny")
    overrides, looked, why = CHANGES[change]
    night = nights.begun(nights.opened("three", rows, nights.recipe.with_overrides(overrides)), **looked)
    assert told(night) == ("scratch", "")
    assert why in night.start.reason and night.start.reason.startswith("from scratch: ")


def test_another_optimizer_takes_the_weights_without_the_moments(nights: Nights) -> None:
    nights.lived("one", "rows", 1)
    nights.lived("two", "more rows", 2)
    muon = nights.recipe.with_overrides({"pretrain.optim.name": "muon"})
    for data, parent in (("new rows", "pretrain@two"), ("more rows", "pretrain@one")):
        start = decided(nights.opened(f"three on {data}", data, muon), *nights.looked_at())
        assert (start.how, start.parent, start.checkpoint) == ("weights", parent, "trunk")


def test_a_stage_of_an_earlier_release_is_told_as_such(nights: Nights) -> None:
    nights.champion = 1
    night = nights.opened("one", "rows")
    record = nights.pretrained("one")
    (record.path / READING).unlink()
    nights.ended(night, record, 1)
    for how in ("trunk", "champion"):
        recipe = nights.recipe.with_overrides({"pretrain.start": how, "promote.mode": "auto"})
        start = decided(nights.opened(f"two {how}", "more rows", recipe), *nights.looked_at())
        assert (
            start.reason == "from scratch: pretrain@one is of an earlier release, which did not note what it had read"
        )


def test_a_recipe_that_begins_with_the_champion_needs_no_trunk(nights: Nights) -> None:
    nights.recipe = nights.recipe.with_overrides({"pretrain.start": "champion", "promote.mode": "auto"})
    first = nights.lived("one", "rows", 1)
    assert told(first) == ("scratch", "")
    assert first.start.reason == "from scratch: no model of this recipe is in use"
    nights.champion = 1
    second = nights.lived("two", "more rows", 2)
    assert (*told(second), second.start.checkpoint) == ("weights", "pretrain@one", "checkpoints")
    assert read_trunk(nights.home, "tiny") is None
    nights.champion = 9
    assert "version 9, are not in" in nights.begun(nights.opened("three", "even more")).start.reason


def test_what_a_night_begins_with_is_decided_once_and_anew_if_it_is_gone(nights: Nights) -> None:
    nights.lived("one", "rows", 1)
    begun = nights.begun(nights.opened("two", "more rows"))
    nights.lived("three", "other rows", 2)
    assert nights.begun(nights.opened("two", "more rows")).start == begun.start
    shutil.rmtree(nights.home / "data" / "pretrain@one" / TRUNK)
    assert told(nights.begun(nights.opened("two", "more rows"))) == ("trunk", "pretrain@three")


def test_a_clearly_worse_night_takes_the_trunk_back_and_the_next_begins_there(nights: Nights) -> None:
    nights.lived("one", "rows", 1)
    nights.champion = 1
    nights.lived("two", "more rows", 2)
    nights.lived("three", "even more", 3, clearly_worse=WORSE)
    assert nights.trunk().folder == "pretrain@one"
    assert nights.trunk().back == f"{WORSE}: the trunk goes back to that of version 1"
    assert Journal(nights.home).entries()[-1]["back"] == nights.trunk().back
    for data in ("even more", "yet more"):
        start = decided(nights.opened(f"four on {data}", data), *nights.looked_at())
        assert (start.how, start.parent) == ("trunk", "pretrain@one"), "not where the worse night began"
        assert "the champion's trunk, to which it went back" in start.reason


def test_a_champion_whose_trunk_is_gone_is_told(nights: Nights, caplog: pytest.LogCaptureFixture) -> None:
    nights.champion = 7
    nights.lived("one", "rows", 1, clearly_worse=WORSE)
    assert nights.trunk().folder == "pretrain@one"
    assert "the trunk does not go back to that of version 7, the champion: it is not in" in caplog.text


def test_a_training_that_began_from_scratch_is_given_time(nights: Nights, caplog: pytest.LogCaptureFixture) -> None:
    """Sent back to the champion's trunk, with which it cannot go on, it would begin from scratch each night."""
    nights.champion = 1
    nights.lived("one", "rows", 1)
    night = nights.begun(nights.opened("two", "more"), tokenizer="other")
    assert night.start.how == "scratch"
    record = nights.pretrained("two", tokenizer="other")
    assert nights.ended(night, record, 2, clearly_worse=WORSE) == ""
    assert nights.trunk().folder == "pretrain@two"
    assert "the tokenizer is another one than pretrain@one was trained with" in caplog.text
    third = nights.begun(nights.opened("three", "even more"), tokenizer="other")
    assert told(third) == ("trunk", "pretrain@two")
    assert nights.ended(third, nights.pretrained("three", tokenizer="other"), 3, clearly_worse=WORSE) == ""
    assert nights.trunk().folder == "pretrain@three"


def test_a_restart_is_made_once_and_not_undone(nights: Nights, caplog: pytest.LogCaptureFixture) -> None:
    nights.recipe = replace(nights.recipe, pretrain=replace(nights.recipe.pretrain, restart_every_nights=2))
    nights.champion = 1
    nights.lived("one", "rows", 1)
    nights.lived("two", "more", 2)
    old = nights.home / "data" / "pretrain@two" / READING
    write_json(old, json.loads(old.read_text()) | {"nights": 2})
    third = nights.begun(nights.opened("three", "even more"))
    assert third.start.how == "scratch"
    assert nights.ended(third, nights.pretrained("three"), 3, clearly_worse=WORSE) == ""
    assert "this training began from scratch on 2026-11-12, after that version was made" in caplog.text
    assert told(nights.begun(nights.opened("four", "and more"))) == ("trunk", "pretrain@three")


def test_drift_from_the_same_champion_restarts_once(nights: Nights) -> None:
    nights.recipe = replace(nights.recipe, inspect=replace(nights.recipe.inspect, restart_drift_psi=0.2))
    nights.champion = 1
    nights.lived("one", "rows", 1)
    drifted = nights.begun(nights.opened("two", "more"), drift=0.5)
    assert drifted.start.how == "scratch"
    nights.ended(drifted, nights.pretrained("two"), 2, clearly_worse=WORSE)
    assert told(nights.begun(nights.opened("three", "even more"), drift=0.5)) == ("trunk", "pretrain@two")
    nights.champion = 2
    assert nights.begun(nights.opened("four", "and more"), drift=0.5).start.how == "scratch"


def test_what_a_person_took_back_stays_back_when_the_night_is_run_again(nights: Nights) -> None:
    nights.lived("one", "rows", 1)
    last = nights.lived("two", "more rows", 2)
    assert back_by_hand(Journal(nights.home), "tiny", 1)
    record = StageRecord.read(nights.home / "data" / "pretrain@two")
    assert record is not None
    assert nights.ended(last, record, 2) == ""
    assert nights.trunk().folder == "pretrain@one"
    assert told(nights.lived("three", "even more", 3)) == ("trunk", "pretrain@one")
    assert nights.trunk().folder == "pretrain@three"


def test_a_champion_that_was_put_back_in_the_registry_takes_the_trunk_with_it_once(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdrawn: list[int] = []
    monkeypatch.setattr(Registry, "has_version", lambda _, version: True)
    monkeypatch.setattr(Registry, "rolled_back_version", lambda _, version: version in withdrawn)
    monkeypatch.setattr(Registry, "mark_rolled_back", lambda _, version, note: withdrawn.append(version))
    nights.lived("one", "rows", 1)
    nights.lived("two", "more rows", 2)
    Journal(nights.home).note(event="decided", recipe="tiny", version=2, promoted=True)
    nights.champion = 1
    night = nights.opened("three", "even more")
    follow_other_hands(night)
    assert withdrawn == [2]
    assert told(nights.begun(night)) == ("trunk", "pretrain@one")
    nights.ended(night, nights.pretrained("three"), 3)
    follow_other_hands(nights.opened("four", "and more"))
    assert nights.trunk().folder == "pretrain@three", "it went back once"


def test_going_back_to_a_version_without_a_trunk_is_told(nights: Nights) -> None:
    nights.lived("one", "rows", 1)
    nights.lived("two", "more rows", 2)
    shutil.rmtree(nights.home / "data" / "pretrain@one")
    assert "the trunk of version 1 is not in" in back_by_hand(Journal(nights.home), "tiny", 1)
    assert nights.trunk().folder == "pretrain@two"
    assert back_by_hand(Journal(nights.home), "unknown", 1) == ""


def test_a_trial_leaves_the_trunk_where_it_is(nights: Nights) -> None:
    nights.lived("one", "rows", 1)
    tried = nights.opened("two", "more rows", replaced={"pretrain.optim.peak_lr": "0.01"})
    nights.ended(tried, nights.pretrained("two"), 2)
    assert nights.trunk().folder == "pretrain@one"
    judged = nights.opened("three", "more rows", replaced={"promote.mode": "auto", "pretrain.night_tokens": "null"})
    nights.ended(judged, nights.pretrained("three"), 3)
    assert nights.trunk().folder == "pretrain@three"


def test_a_night_that_is_decided_on_later_moves_the_trunk_only_while_it_is_its_own(nights: Nights) -> None:
    first = nights.lived("one", "rows", 1)
    nights.champion = 1
    second = nights.lived("two", "more rows", 2)
    two = StageRecord.read(nights.home / "data" / "pretrain@two")
    assert two is not None
    assert move_trunk(replace(second, raw=Resolved(())), two, WORSE, late=True)
    assert nights.trunk().folder == "pretrain@one"
    assert nights.trunk().data != first.key
    nights.lived("three", "even more", 3)
    assert move_trunk(replace(second, raw=Resolved(())), two, WORSE, late=True) == ""
    assert nights.trunk().folder == "pretrain@three"


def test_an_overtaken_night_moves_no_trunk_and_tells_of_nothing(nights: Nights) -> None:
    nights.lived("one", "rows", 1)
    journal = Journal(nights.home)
    with journal.lease("tiny") as nights.token:
        overtaken = nights.begun(nights.opened("two", "more rows"))
        record = nights.pretrained("two")
        journal.take_over("a person")
        left = {path: path.read_bytes() for path in nights.home.rglob("*.json*")}
        with pytest.raises(NightBusy, match="overtaken"):
            move_trunk(overtaken, record, "")
        with pytest.raises(NightBusy, match="overtaken"):
            conclude(Candidate(overtaken, [record]), record)
        assert {path: path.read_bytes() for path in nights.home.rglob("*.json*")} == left
    assert nights.trunk().folder == "pretrain@one"


def test_a_lineage_is_that_of_the_night_it_goes_on_from_and_tonight(nights: Nights) -> None:
    nights.lived("one", "rows", 1)
    nights.lived("two", "more rows", 2)
    same = nights.begun(nights.opened("other code, same model", "more rows"))
    record = StageRecord.read(nights.home / "data" / "pretrain@two")
    assert record is not None
    nights.ended(same, record, 3)
    nights.lived("three", "even more", 4)
    chain = read_note(note_path(nights.home, "tiny", "three"))[LINEAGE]
    assert [entry["night"] for entry in chain] == ["one", "other code, "[:12], "three"]
    assert [entry["version"] for entry in chain] == [1, 3, None]
    assert [entry["from_night"] for entry in chain] == ["", "one", "other code, "[:12]]
    assert str(chain[0]["began"]).startswith("from scratch: ")


def test_a_night_that_is_killed_before_its_end_is_known_to_those_that_go_on_from_it(nights: Nights) -> None:
    """All but the last word of it: it is not skipped when it is run again, and it is an ancestor all the same."""
    nights.lived("one", "rows", 1)
    note = note_path(nights.home, "tiny", "one")
    assert "ended" not in read_note(note)
    nights.lived("two", "more rows", 2)
    chain = read_note(note_path(nights.home, "tiny", "two"))[LINEAGE]
    assert [(entry["night"], entry["version"]) for entry in chain] == [("one", 1), ("two", None)]


def test_a_start_that_was_noted_is_read_as_it_was(nights: Nights) -> None:
    path = nights.home / "nights" / "tiny@one.json"
    nights.opened("one", "rows")
    start = Start(how="weights", parent="pretrain@零", checkpoint="checkpoints", reason="接着训练")
    add_to_note(path, {START: plain(start)})
    nights.pretrained("零")
    assert nights.begun(nights.opened("one", "rows")).start == start
    assert json.loads(path.read_text(encoding="utf-8"))[START]["reason"] == "接着训练"
