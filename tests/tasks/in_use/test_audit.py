"""Who did what to a model, when, why and on what evidence; and everyone who asks who is champion is told what the
registry says, whoever moved the alias."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.errors import NightStopped
from tasks.home.journal import Journal
from tasks.in_use.audit import audit_lines
from tasks.in_use.version import usable_model
from tasks.night.by_hand import previous_champion, promote_version
from tasks.night.incumbent import champion_of, incumbent_of, standing_now
from tasks.questions.lineage import registered_champion
from tasks.recipes.recipe import Recipe, data_identity
from tasks.sources.resolve import Resolved
from tasks.stage import Night
from tasks.tracking.mlflow_store import Store
from tasks.tracking.moves.ledger import Overtaken
from tasks.tracking.registry import Registry
from tasks.tracking.versions import CHAMPION
from tests.tiny_recipe import tiny_recipe

MODEL = "nightschool-tiny"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return tiny_recipe(tmp_path / "raw")


@pytest.fixture
def registry(store: Store, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Four versions: the first two were champion one after the other, the third was refused, the fourth waits."""
    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    found, identity = store.registry("tiny"), data_identity(recipe)
    for number in range(1, 5):
        run_id = store.start_run("register", {"nightschool.recipe": "tiny"})
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "weights").write_text(f"weights {number}")
        store.tracker(run_id).artifact(tmp_path / "model", "model")
        found.register(run_id, f"digest {number}", f"reason {number}", identity)
    for number, before in ((1, None), (2, 1)):
        found.make_champion(
            number, f"better {number}", instead_of=before, evidence={"difference_bpb": -0.0123 * number}
        )
    found.note_verdict(3, "worse in code", {"refused": True, "difference_bpb": 0.5})
    found.note_verdict(4, "not shown to be better", {"refused": False})
    return found


def test_promotions_refusals_and_rollbacks_are_listed_with_who_why_and_the_numbers(registry: Registry) -> None:
    promote_version("tiny", None)
    with pytest.raises(Overtaken):
        registry.make_champion(4, "better 4", instead_of=2)
    said = "\n".join(audit_lines("tiny"))
    assert said.startswith(f"{MODEL}: champion 1, challenger none, previous 2\n")
    for part in (
        "version 1: champion, by a night (", "better 1\n    difference_bpb -0.01",
        "version 2: champion, by a night in place of version 1 (", "version 3: refused, by a limit (",
        "worse in code\n    refused true, difference_bpb 0.5", "version 1: champion again, by a rollback in place of",
        "version 2: out of use: no night promotes these weights again\n    rolled back by hand, ",
        "version 4: not made champion in place of version 2, as another came first: attempt 3, version 1 in place of 2",
    ):  # fmt: skip
        assert part in said, said
    assert said.count("version 4: ") == 1
    shortened = list(audit_lines("tiny", everything=True))
    assert len(shortened) == 1 + 6


def test_what_is_left_out_of_a_long_list_is_counted(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.in_use.audit.NEWEST", 3)
    lines = list(audit_lines(None))
    assert len(lines) == 1 + 1 + 3
    assert lines[1] == "1 earlier line left out; --all shows them"
    assert len(list(audit_lines(None, everything=True))) == 1 + 4


def night_of(recipe: Recipe, store: Store, home: Path) -> Night:
    return Night(recipe, "key", home, store.tracking_uri, "", 1, Resolved(()))


READERS: dict[str, Callable[[Night], int | None]] = {
    "chat, serve": lambda night: usable_model("tiny", None).version,
    "drift": lambda night: (champion := champion_of(night)) and champion.version,
    "gate": lambda night: (champion := incumbent_of(night).champion) and champion.version,
    "questions": lambda night: registered_champion(night.home, "tiny"),
    "summary": lambda night: 4 if "it is the champion now" in standing_now(night.registry, 4) else None,
    "list": lambda night: int(next(iter(audit_lines("tiny"))).split("champion ")[1].split(",")[0]),
}


@pytest.mark.parametrize("reader", READERS)
def test_an_alias_that_was_moved_in_mlflow_is_what_everyone_reads(
    registry: Registry, recipe: Recipe, store: Store, tmp_path: Path, reader: str
) -> None:
    MlflowClient(store.tracking_uri).set_registered_model_alias(MODEL, CHAMPION, "4")
    assert READERS[reader](night_of(recipe, store, tmp_path)) == 4


def test_the_list_says_that_an_alias_was_moved_in_mlflow(registry: Registry, store: Store) -> None:
    client = MlflowClient(store.tracking_uri)
    client.set_registered_model_alias(MODEL, CHAMPION, "4")
    said = "since then: champion is 4, moved in the registry itself, which does not note by whom"
    assert list(audit_lines("tiny"))[-1] == said
    client.delete_registered_model_alias(MODEL, CHAMPION)
    assert list(audit_lines("tiny"))[-1].startswith("since then: champion is no version, ")


def test_a_rollback_after_somebody_moved_the_alias_in_mlflow_goes_to_what_was_in_use_before(
    registry: Registry, store: Store, tmp_path: Path
) -> None:
    """MLflow leaves `previous` as it was."""
    client, journal = MlflowClient(store.tracking_uri), Journal(tmp_path)
    client.set_registered_model_alias(MODEL, CHAMPION, "4")
    assert previous_champion(registry, journal) == 2
    client.set_registered_model_alias(MODEL, CHAMPION, "1")
    with pytest.raises(NightStopped, match="version 1 is champion and previous at once, as somebody went back in the"):
        previous_champion(registry, journal)


def test_a_person_who_is_overtaken_has_changed_nothing(
    registry: Registry, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one moves the alias between looking and promoting."""
    whole = Registry.make_champion

    def late(self: Registry, *arguments: object, **named: object) -> None:
        MlflowClient(store.tracking_uri).set_registered_model_alias(MODEL, CHAMPION, "4")
        whole(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Registry, "make_champion", late)
    with pytest.raises(Overtaken, match="version 1 was to be champion in place of 2, and another came first"):
        promote_version("tiny", 1)
    assert registry.version_of(CHAMPION) == 4
    assert registry.rolled_back_version(2) is None
    [noted] = [entry for entry in Journal(tmp_path).entries() if entry["event"] == "overtaken"]
    assert (noted["version"], noted["recipe"]) == (1, "tiny") and "@" in noted["who"]
