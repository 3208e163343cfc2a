"""The registry moves aliases as asked, and silence is not an answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.tracking.client import Refused
from tasks.tracking.mlflow_store import Store
from tasks.tracking.registry import CHALLENGER, CHAMPION, MODEL, PREVIOUS


def trained(store: Store, folder: Path, content: str) -> str:
    """A run with a model among its artifacts."""
    run_id = store.start_run("register", {})
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights").write_text(content)
    tracker = store.tracker(run_id)
    tracker.artifact(folder / "model", "model")
    tracker.close("FINISHED")
    return run_id


@pytest.fixture
def versions(store: Store, tmp_path: Path) -> list[int]:
    """Three registered models."""
    return [store.registry.register(trained(store, tmp_path, f"weights {n}"), f"digest {n}", "why") for n in range(3)]


def held(store: Store) -> tuple[int | None, int | None]:
    """Versions of champion and previous."""
    champion, previous = store.registry.holder_of(CHAMPION), store.registry.holder_of(PREVIOUS)
    return champion and champion.version, previous and previous.version


def test_registering_again_keeps_the_version(store: Store, tmp_path: Path) -> None:
    """A stage that died between registering and publishing does it again."""
    one, other = trained(store, tmp_path, "a"), trained(store, tmp_path, "b")
    first = store.registry.register(one, "digest a", "why")
    assert store.registry.register(one, "digest a", "why not") == first
    assert store.registry.register(other, "digest b", "why") == first + 1
    assert store.registry.register(one, "digest a", "why") == first
    assert [store.registry.has_version(version) for version in (first, first + 1, first + 2)] == [True, True, False]


def test_nothing_is_held_and_no_version_is_there_at_first(store: Store) -> None:
    assert held(store) == (None, None)
    assert not store.registry.has_version(1)


def test_the_holder_of_an_alias_has_its_files_here(store: Store, versions: list[int]) -> None:
    for number, version in enumerate(versions):
        store.registry.set_alias(CHALLENGER, version)
        found = store.registry.holder_of(CHALLENGER)
        assert found is not None
        assert (found.version, found.digest) == (version, f"digest {number}")
        assert (found.path / "weights").read_text() == f"weights {number}"
    assert held(store) == (None, None)


def test_the_champion_moves_and_the_one_before_is_kept(store: Store, versions: list[int]) -> None:
    one, two, three = versions
    for version, expected in (
        (one, (one, None)), (one, (one, None)), (two, (two, one)), (two, (two, one)), (three, (three, two)),
        (two, (two, three)),
    ):  # fmt: skip
        store.registry.make_champion(version, f"because of {version}")
        assert held(store) == expected
    client = MlflowClient(store.tracking_uri)
    assert client.get_model_version(MODEL, str(three)).tags["nightschool.decision"] == f"because of {three}"


def test_a_version_that_is_not_there_cannot_be_champion(store: Store, versions: list[int]) -> None:
    store.registry.make_champion(versions[0], "first")
    with pytest.raises(Refused):
        store.registry.make_champion(99, "a slip of the finger")
    assert held(store) == (versions[0], None)
