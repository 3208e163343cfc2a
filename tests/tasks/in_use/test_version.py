"""Which version is meant by a recipe, a number or nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.errors import NightStopped
from tasks.home.journal import Journal
from tasks.in_use.version import usable_model
from tasks.recipes.data_identity import DataIdentity
from tasks.tracking.mlflow_store import Store
from tasks.tracking.versions import CHAMPION, OLD_MODEL

Register = Callable[[str, str], int]


@pytest.fixture
def lived_in(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    return store


@pytest.fixture
def register(lived_in: Store, tmp_path: Path) -> Register:
    def registered(recipe: str, weights: str) -> int:
        run_id = lived_in.start_run("register", {"nightschool.recipe": recipe})
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "weights").write_text(weights)
        lived_in.tracker(run_id).artifact(tmp_path / "model", "model")
        identity = DataIdentity(recipe=recipe, split={}, sources={})
        return lived_in.registry(recipe).register(run_id, weights, "why", identity)

    return registered


def test_the_champion_or_a_version_by_number(register: Register, lived_in: Store) -> None:
    first, second = register("tiny", "one"), register("tiny", "two")
    lived_in.registry("tiny").make_champion(first, "why")
    for recipe, version, weights, name in (
        ("tiny", None, "one", "nightschool-tiny, version 1, the champion"),
        (None, None, "one", "nightschool-tiny, version 1, the champion"),
        (None, first, "one", "nightschool-tiny, version 1, the champion"),
        ("tiny", second, "two", "nightschool-tiny, version 2"),
    ):
        model = usable_model(recipe, version)
        assert ((model.folder / "weights").read_text(), str(model)) == (weights, name)


def test_a_night_may_hold_the_home(register: Register, lived_in: Store, tmp_path: Path) -> None:
    lived_in.registry("tiny").make_champion(register("tiny", "one"), "why")
    with Journal(tmp_path).lease("a night"):
        assert usable_model("tiny", None).is_champion


def test_what_is_not_there_is_told_with_what_is(register: Register, lived_in: Store) -> None:
    register("tiny", "one")
    for recipe, version, said in (
        ("tiny", None, "nightschool-tiny has no champion; name a version .* flows promote tiny VERSION"),
        ("tiny", 9, "no version 9 of nightschool-tiny; the champion is none"),
        ("tinny", None, "recipe 'tinny' has no registered model; did you mean tiny.*\n.* model: tiny"),
    ):
        with pytest.raises(NightStopped, match=said):
            usable_model(recipe, version)
    register("other", "two")
    with pytest.raises(NightStopped, match="name the recipe: other, tiny"):
        usable_model(None, None)


def test_files_that_are_gone_are_named(register: Register, lived_in: Store, tmp_path: Path) -> None:
    version = register("tiny", "one")
    for path in tmp_path.rglob("artifacts/model/weights"):
        path.unlink()
        path.parent.rmdir()
    with pytest.raises(NightStopped, match="the files of version 1 of nightschool-tiny are gone"):
        usable_model("tiny", version)


def test_a_home_without_a_night_is_left_as_it_is(home: Path) -> None:
    with pytest.raises(NightStopped, match=r"no model is registered in .*: no night was there yet"):
        usable_model(None, None)
    assert not home.exists()


def test_a_champion_of_an_earlier_release_is_taken_over(register: Register, lived_in: Store) -> None:
    from mlflow import MlflowClient

    register("tiny", "one")
    client = MlflowClient(lived_in.tracking_uri)
    client.rename_registered_model("nightschool-tiny", OLD_MODEL)
    client.set_registered_model_alias(OLD_MODEL, CHAMPION, "1")
    client.set_model_version_tag(OLD_MODEL, "1", "nightschool.decision", "first")
    assert str(usable_model("tiny", None)) == "nightschool-tiny, version 1, the champion"
