"""The registry moves aliases as asked, and silence is not an answer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode

from tasks.errors import MESSAGE_LIMIT, Refused, StoreAway
from tasks.recipes.data_identity import DataIdentity
from tasks.tracking import registry
from tasks.tracking.delivery import Outbox
from tasks.tracking.mlflow_store import Store
from tasks.tracking.registry import Registry
from tasks.tracking.versions import CHALLENGER, CHAMPION, PREVIOUS

MODEL = "nightschool-tiny"
DATA_OF_TINY = DataIdentity(recipe="tiny", split={"split.val_share": 0.1}, sources={"text": "/raw/text.jsonl"})


def registry_of(store: Store) -> Registry:
    return store.registry("tiny")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "PAUSES_SECONDS", (0.0, 0.0))


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
    return [
        registry_of(store).register(trained(store, tmp_path, f"weights {n}"), f"digest {n}", "why", DATA_OF_TINY)
        for n in range(3)
    ]


def held(store: Store) -> tuple[int | None, int | None]:
    """Versions of champion and previous."""
    champion, previous = registry_of(store).holder_of(CHAMPION), registry_of(store).holder_of(PREVIOUS)
    return champion and champion.version, previous and previous.version


def test_registering_again_keeps_the_version(store: Store, tmp_path: Path) -> None:
    """A stage that died between registering and publishing does it again."""
    one, other = trained(store, tmp_path, "a"), trained(store, tmp_path, "b")
    first = registry_of(store).register(one, "digest a", "why", DATA_OF_TINY)
    assert registry_of(store).register(one, "digest a", "why not", DATA_OF_TINY) == first
    assert registry_of(store).register(other, "digest b", "why", DATA_OF_TINY) == first + 1
    assert registry_of(store).register(one, "digest a", "why", DATA_OF_TINY) == first
    assert [registry_of(store).has_version(version) for version in (first, first + 1, first + 2)] == [True, True, False]


def test_nothing_is_held_and_no_version_is_there_at_first(store: Store) -> None:
    assert held(store) == (None, None)
    assert not registry_of(store).has_version(1)


def test_the_holder_of_an_alias_has_its_files_here(store: Store, versions: list[int]) -> None:
    for number, version in enumerate(versions):
        registry_of(store).set_alias(CHALLENGER, version)
        holder = registry_of(store).holder_of(CHALLENGER)
        assert holder is not None
        assert (holder.version, holder.digest) == (version, f"digest {number}")
        assert (holder.path / "weights").read_text() == f"weights {number}"
    assert held(store) == (None, None)


def test_the_champion_moves_and_the_one_before_is_kept(store: Store, versions: list[int]) -> None:
    one, two, three = versions
    for version, expected in (
        (one, (one, None)), (one, (one, None)), (two, (two, one)), (two, (two, one)), (three, (three, two)),
        (two, (two, three)),
    ):  # fmt: skip
        registry_of(store).make_champion(version, f"because of {version}")
        assert held(store) == expected
    client = MlflowClient(store.tracking_uri)
    assert client.get_model_version(MODEL, str(three)).tags["nightschool.decision"] == f"because of {three}"


def test_a_version_that_is_not_there_cannot_be_champion(store: Store, versions: list[int]) -> None:
    registry_of(store).make_champion(versions[0], "first")
    with pytest.raises(Refused):
        registry_of(store).make_champion(99, "a slip of the finger")
    assert held(store) == (versions[0], None)


QUESTIONS: dict[str, Callable[[Registry], object]] = {
    "champion": lambda r: r.champion(),
    "version_of": lambda r: r.version_of(PREVIOUS),
    "holder_of": lambda r: r.holder_of(CHALLENGER),
    "has_version": lambda r: r.has_version(1),
    "set_alias": lambda r: r.set_alias(CHALLENGER, 1),
    "standing": lambda r: r.standing(),
    "rolled_back": lambda r: r.rolled_back("digest"),
    "rolled_back_version": lambda r: r.rolled_back_version(1),
    "mark_rolled_back": lambda r: r.mark_rolled_back(1, "when"),
    "clear_rolled_back": lambda r: r.clear_rolled_back(1),
    "adopt_old_versions": lambda r: r.adopt_old_versions(),
    "recipes": lambda r: r.recipes(),
    "versions": lambda r: r.versions(),
    "make_champion": lambda r: r.make_champion(1, "why"),
    "register": lambda r: r.register("0" * 32, "digest", "why", DATA_OF_TINY),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_store_that_is_away_is_not_a_store_without_champion(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Else a night during an outage would promote its model as the first one, with nothing to compare it with."""

    def away(_: Outbox) -> MlflowClient:
        raise ConnectionError("no route to the store" * 1_000)

    monkeypatch.setattr(Outbox, "client", away)
    with pytest.raises(StoreAway, match="did not answer: no route to the store") as away_error:
        QUESTIONS[name](registry_of(store))
    assert len(str(away_error.value)) < MESSAGE_LIMIT


@pytest.mark.parametrize("code", ["INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "ENDPOINT_NOT_FOUND", "BAD_REQUEST"])
def test_an_error_of_what_is_between_is_no_answer(store: Store, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A proxy in front of a store that is down answers, too."""

    def failed(*_: object) -> None:
        raise MlflowException("not from the store", error_code=ErrorCode.Value(code))

    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", failed)
    with pytest.raises(StoreAway):
        registry_of(store).champion()


WRITES = ("create_registered_model", "create_model_version", "set_registered_model_alias", "set_model_version_tag")
READS = ("search_model_versions", "get_run", "get_model_version_by_alias")
CALLS_OF_A_PROMOTION = 8


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_blink_at_any_call_of_a_promotion_changes_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    run_id = trained(store, tmp_path, "weights")
    calls, fault = count(), [-1]

    def blinking(whole: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            now = next(calls) == fault[0]
            if now and lost == "request":
                raise ConnectionError
            answer = whole(*arguments, **named)
            if now:
                raise ConnectionError
            return answer

        return call

    for name in (*WRITES, *READS):
        monkeypatch.setattr(MlflowClient, name, blinking(getattr(MlflowClient, name)))
    for fault[0] in range(CALLS_OF_A_PROMOTION):
        calls = count()
        version = registry_of(store).register(run_id, f"digest {fault[0]}", "why", DATA_OF_TINY)
        registry_of(store).make_champion(version, "better")
        before = fault[0] or None
        assert (version, held(store)) == (fault[0] + 1, (fault[0] + 1, before)), f"fault at call {fault[0]}"
    assert next(calls) > CALLS_OF_A_PROMOTION, "each call was lost once"


def test_nothing_is_registered_before_all_of_its_run_is_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as outage:
        outage.setattr(Outbox, "client", lambda _: MlflowClient("http://127.0.0.1:9"))
        outage.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        run_id = trained(store, tmp_path, "weights")
        with pytest.raises(StoreAway, match=r"did not answer.* wait 3 calls in .*spool.* run the same command again"):
            registry_of(store).register(run_id, "digest", "why", DATA_OF_TINY)
    assert registry_of(store).champion() is None
    version = registry_of(store).register(run_id, "digest", "why", DATA_OF_TINY)
    assert store.waiting() == 0
    registry_of(store).make_champion(version, "first")
    champion = registry_of(store).champion()
    assert champion is not None
    assert (champion.path / "weights").read_text() == "weights"
    assert MlflowClient(store.tracking_uri).get_model_version(MODEL, str(version)).run_id == store.resolve(run_id)
