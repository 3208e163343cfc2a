"""Names of nights: what differs is in them, they are bounded, and whatever a setting holds they are one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.home.lines import now
from tasks.home.notes import notes_in
from tasks.night.lineage.naming import (
    Identity,
    differences,
    night_before,
    night_run_name,
    run_name,
    told_beside,
)
from tasks.pages.text import RUN_NAME_CHARACTERS
from tasks.recipes.overrides import short_names, told
from tasks.recipes.recipe import recipe_from
from tests.tiny_recipe import tiny_content

SETTINGS = st.dictionaries(st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3}){0,3}", fullmatch=True), st.text(), max_size=6)


def identity(started: str = "2026-11-28T01:30:00+00:00", **changes: str) -> Identity:
    return Identity(params={"pretrain.optim.peak_lr": "0.01", "twin": "false"} | changes, data="d", code="c",
                    started=started)  # fmt: skip


def test_a_name_says_recipe_day_and_what_differs() -> None:
    special = told_beside(identity(**{"pretrain.optim.peak_lr": "0.001"}), identity())
    assert run_name("demo", "2026-11-28", special=special) == "demo 2026-11-28 peak_lr=0.001"
    assert run_name("demo", "2026-11-28", "sweep") == "sweep demo 2026-11-28"


def test_settings_of_one_name_keep_what_tells_them_apart() -> None:
    assert told({"pretrain.optim.peak_lr": "1", "sft.optim.peak_lr": "2", "model.vocab_size": "3"}) == [
        "pretrain.optim.peak_lr=1", "sft.optim.peak_lr=2", "vocab_size=3",
    ]  # fmt: skip


def test_other_data_and_other_code_are_told() -> None:
    other = Identity(params=identity().params, data="more", code="newer")
    assert told_beside(other, identity()) == ["new data", "new code"]
    assert told_beside(identity(), identity()) == told_beside(identity(), None) == []


def test_a_setting_that_came_with_the_code_is_no_difference() -> None:
    assert differences({"twin": "true", "new": "1"}, {"twin": "false", "old": "2"}) == {"twin": "true"}


@given(settings=SETTINGS, recipe=st.text(max_size=200))
def test_names_are_bounded_lines(settings: dict[str, str], recipe: str) -> None:
    name = run_name(recipe, "2026-11-28", special=told(settings))
    assert len(name) <= RUN_NAME_CHARACTERS
    assert name.isprintable()


@given(settings=SETTINGS)
def test_short_names_are_ends_that_differ(settings: dict[str, str]) -> None:
    names = short_names(settings)
    assert len(set(names.values())) == len(settings)
    assert all(f".{key}".endswith(f".{end}") for key, end in names.items())


def test_the_night_before_is_the_newest_other_one_that_tells_enough(tmp_path: Path) -> None:
    days = {"a": "2026-11-25", "b": "2026-11-27", "c": "2026-11-28"}
    for key, day in days.items():
        content = {"run_id": key, "key": key, "identity": identity(started=f"{day}T01:30:00+00:00").as_note()}
        (tmp_path / f"tiny@{key}.json").write_text(json.dumps(content))
    (tmp_path / "tiny@old.json").write_text(json.dumps({"run_id": "x", "key": "old"}))
    (tmp_path / "tiny@damaged.json").write_text("{")
    before = night_before(notes_in(tmp_path), "c")
    assert before is not None
    assert before.day == days["b"]
    assert night_before([note for note in notes_in(tmp_path) if note.name == "tiny@old"], "c") is None


def test_who_promotes_is_in_no_name() -> None:
    asked = identity(**{"promote.mode": "ask", "twin": "true"})
    assert told_beside(asked, identity(**{"promote.mode": "auto"})) == ["twin=true"]


def test_a_flow_run_is_called_by_its_replaced_settings_in_the_order_of_the_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = recipe_from(tiny_content({"text": Path("text.jsonl"), "chat": Path("chat.jsonl")}))
    names = set()
    for overrides in (
        {"pretrain.optim.peak_lr": 0.001, "twin": True, "promote.mode": "ask"},
        {"promote.mode": "ask", "twin": True, "pretrain.optim.peak_lr": 0.001},
    ):
        run = SimpleNamespace(parameters={"recipe": recipe, "overrides": overrides}, flow_name="retrain-nightly")
        monkeypatch.setattr("tasks.night.lineage.naming.flow_run", run)
        names.add(night_run_name().replace(now()[:10], "DAY"))
    assert names == {"tiny DAY peak_lr=0.001 twin=true"}
