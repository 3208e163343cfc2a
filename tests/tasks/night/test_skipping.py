"""A night that would repeat one that has ended is skipped, and no other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from model.files import write_json
from tasks.home.journal import Journal
from tasks.home.notes import ENDED, STAGES_DONE, WAITING, note_path
from tasks.home.outcomes import outcomes
from tasks.night.skipping import MADE_OF, NightSkipped, require_something_new
from tasks.recipes.recipe import Recipe, recipe_from
from tasks.tracking.mlflow_store import Store
from tests.tasks.rows import stage_record
from tests.tiny_recipe import tiny_content

ROWS = "digest of rows, recipe and code"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "home")


@pytest.fixture
def recipe() -> Recipe:
    return recipe_from(tiny_content({"text": Path("/text.jsonl"), "chat": Path("/chat.jsonl")}))


def night(journal: Journal, key: str, **more: Any) -> None:
    """A night that has ended."""
    folder = journal.home / "data" / f"sft@{key}"
    folder.mkdir(parents=True)
    stage_record(folder).write(folder)
    started = f"2026-11-{20 + int(key)}T01:30:00+00:00"
    identity = {"params": {}, "data": "d", "code": "c", "started": started}
    content = {"key": key, "identity": identity, MADE_OF: ROWS, STAGES_DONE: {"sft": folder.name}, ENDED: True}
    write_json(note_path(journal.home, "tiny", key), content | more)


def is_skipped(journal: Journal, store: Store, recipe: Recipe, made_of: str = ROWS) -> str:
    """Why, or nothing."""
    try:
        require_something_new(journal, store, recipe, "tonight", made_of)
    except NightSkipped as skipped:
        return str(skipped)
    return ""


def test_a_night_that_would_repeat_one_is_skipped_with_a_line_of_the_journal(
    journal: Journal, store: Store, recipe: Recipe
) -> None:
    assert is_skipped(journal, store, recipe) == "", "the first night of a home"
    night(journal, "1")
    night(journal, "2")
    assert is_skipped(journal, store, recipe, "other rows") == ""
    said = is_skipped(journal, store, recipe)
    assert said == "Skipped: no row is new, and recipe and code are those of the night tiny 2026-11-22"
    [told] = outcomes(journal.entries())
    assert (told.ending, told.key, f"Skipped: {told.reason}") == ("skipped", "tonight", said)


@pytest.mark.parametrize("left", ["note", "folder", "end"])
def test_what_is_not_whole_is_done_again(journal: Journal, store: Store, recipe: Recipe, left: str) -> None:
    night(journal, "1", **({ENDED: False} if left == "end" else {}))
    if left == "note":
        note_path(journal.home, "tiny", "1").write_text("{")
    if left == "folder":
        shutil.rmtree(journal.home / "data" / "sft@1")
    assert is_skipped(journal, store, recipe) == ""


def test_a_model_that_waits_for_tonights_registry_is_registered_first(
    journal: Journal, store: Store, recipe: Recipe
) -> None:
    night(journal, "1", **{WAITING: {"recipe": {}, "store": "http://elsewhere"}})
    assert is_skipped(journal, store, recipe), "tonight's registry has nothing to do with it"
    night(journal, "2", **{WAITING: {"recipe": {}, "store": store.tracking_uri}})
    assert is_skipped(journal, store, recipe) == ""
