"""A home of the time when all recipes shared one registered model goes on with its champion, under the new names."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.recipes.recipe import as_params, data_identity
from tasks.tracking.adoption import adopt_old_versions
from tasks.tracking.mlflow_store import Store
from tasks.tracking.versions import CHAMPION, DECISION, DIGEST, OLD_MODEL, PREVIOUS
from tests.tiny_recipe import tiny_recipe


def old_version(store: Store, folder: Path, recipe: str, promoted: bool) -> int:
    """A version as it was registered then, with the runs it came from."""
    client = MlflowClient(store.tracking_uri)
    night = store.start_run("night", {"nightschool.recipe": recipe})
    tiny = tiny_recipe(folder / "raw").with_overrides({"name": recipe, "split.salt": "of then"})
    store.tracker(night).params(as_params(tiny))
    run_id = store.start_run("register", {"nightschool.recipe": recipe}, parent_id=night)
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights").write_text(run_id)
    store.tracker(run_id).artifact(folder / "model", "model")
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    tags = {DIGEST: f"weights of {run_id}"} | ({DECISION: "better"} if promoted else {})
    return int(client.create_model_version(OLD_MODEL, source, run_id, tags=tags, description="why").version)


@pytest.fixture
def client(store: Store, tmp_path: Path) -> MlflowClient:
    """demo 1 was promoted, dethroned by toy 2, and demo 3 and 4 came after; demo 3 was promoted, too."""
    client = MlflowClient(store.tracking_uri)
    client.create_registered_model(OLD_MODEL)
    for recipe, promoted in (("demo", True), ("toy", True), ("demo", True), ("demo", False)):
        old_version(store, tmp_path, recipe, promoted)
    client.set_registered_model_alias(OLD_MODEL, CHAMPION, "3")
    client.set_registered_model_alias(OLD_MODEL, PREVIOUS, "2")
    return client


def held(store: Store, recipe: str) -> tuple[int | None, int | None]:
    registry = store.registry(recipe)
    return registry.version_of(CHAMPION), registry.version_of(PREVIOUS)


def test_each_recipe_takes_its_own_versions_and_its_champion(
    store: Store, client: MlflowClient, tmp_path: Path
) -> None:
    adopted = store.registry("demo").adopt_old_versions()
    assert adopted is not None
    assert adopted.versions == {1: 1, 3: 2, 4: 3}
    assert held(store, "demo") == (2, 1), "the alias of then, and before it the recipe's own champion"
    assert "1 is now 1, 3 is now 2, 4 is now 3; champion is 2" in str(adopted)
    champion = store.registry("demo").champion()
    assert champion is not None
    assert champion.digest == client.get_model_version(OLD_MODEL, "3").tags[DIGEST] == adopted.digests[2]
    assert (champion.path / "weights").exists()
    then = tiny_recipe(tmp_path / "raw").with_overrides({"name": "demo", "split.salt": "of then"})
    assert champion.data == data_identity(then)

    assert store.registry("demo").adopt_old_versions() is None, "once"
    store.registry("toy").adopt_old_versions()
    assert held(store, "toy") == (1, None), "the champion that it was before another recipe dethroned it"
    assert store.registry("new").adopt_old_versions() is None
    assert len(client.search_model_versions(f"name='{OLD_MODEL}'")) == 4, "nothing is taken away"


def test_without_an_old_model_there_is_nothing_to_do(store: Store) -> None:
    assert store.registry("demo").adopt_old_versions() is None
    assert store.registry("demo").recipes() == []


def test_a_version_whose_run_is_gone_is_named(store: Store, client: MlflowClient) -> None:
    client._tracking_client.store._hard_delete_run(client.get_model_version(OLD_MODEL, "4").run_id)
    adopted = store.registry("demo").adopt_old_versions()
    assert adopted is not None and adopted.unknown == (4,)
    assert "nobody knows the recipe of 4, which stay there" in str(adopted)


@pytest.mark.parametrize("fault", range(7))
def test_an_interruption_at_any_write_leaves_no_second_first_model(
    store: Store, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    """A model, three versions, two aliases, the tag at the end."""
    calls = iter(range(100))

    def failing(name: str) -> None:
        whole = getattr(MlflowClient, name)

        def call(*arguments: object, **named: object) -> object:
            if next(calls) == fault:
                raise KeyboardInterrupt
            return whole(*arguments, **named)

        patch.setattr(MlflowClient, name, call)

    with monkeypatch.context() as patch:
        for name in (
            "create_registered_model",
            "create_model_version",
            "set_registered_model_alias",
            "delete_registered_model_tag",
        ):
            failing(name)
        with pytest.raises(KeyboardInterrupt):
            adopt_old_versions(client, "demo")
    adopted = store.registry("demo").adopt_old_versions()
    assert adopted is not None and adopted.versions == {1: 1, 3: 2, 4: 3}
    assert held(store, "demo") == (2, 1)
    assert len(client.search_model_versions("name='nightschool-demo'")) == 3
