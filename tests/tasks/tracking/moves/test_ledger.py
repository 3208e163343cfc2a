"""Of two homes that promote at once into one registry, one does, whatever the order of their calls and wherever one of
them is killed; both attempts are written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST

from tasks.errors import Refused
from tasks.tracking.client import two_errors
from tasks.tracking.delivery import Outbox
from tasks.tracking.moves.ledger import Attempt, Overtaken, winners
from tasks.tracking.registry import Registry
from tasks.tracking.versions import CHAMPION, DIGEST, PREVIOUS
from tests.tasks.training_runs import Killed

MODEL = "nightschool-tiny"
MOST_CALLS = 40


class Models:
    """What MLflow's registry does with models, versions, tags and aliases, in memory; told of every call."""

    def __init__(self) -> None:
        self.versions: dict[str, dict[int, SimpleNamespace]] = {}
        self.aliases: dict[str, int] = {}
        self.before: Callable[[str], None] = lambda call: None
        self.after: Callable[[str], None] = lambda call: None

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if not callable(found) or name in ("before", "after") or name.startswith("_"):
            return found

        def told(*arguments: Any, **named: Any) -> Any:
            self.before(name)
            answer = found(*arguments, **named)
            self.after(name)
            return answer

        return told

    def get_registered_model(self, model: str) -> None:
        if model not in self.versions:
            raise MlflowException("no such model", error_code=RESOURCE_DOES_NOT_EXIST)

    def create_registered_model(self, model: str, description: str) -> None:
        if model in self.versions:
            raise MlflowException("it is there", error_code=RESOURCE_ALREADY_EXISTS)
        self.versions[model] = {}

    def search_registered_models(self, wanted: str) -> list[SimpleNamespace]:
        prefix = wanted.removeprefix("name LIKE '").removesuffix("%'")
        return [SimpleNamespace(name=name) for name in self.versions if name.startswith(prefix)]

    def create_model_version(
        self, model: str, source: str, *, tags: dict[str, str], description: str
    ) -> SimpleNamespace:
        number = max(self.versions[model], default=0) + 1
        self.versions[model][number] = SimpleNamespace(
            name=model, version=str(number), source=source, tags=dict(tags), description=description,
            creation_timestamp=number,
        )  # fmt: skip
        return self.versions[model][number]

    def search_model_versions(self, wanted: str) -> list[SimpleNamespace]:
        model, _, tag = wanted.removeprefix("name='").partition("'")
        key, _, value = tag.removeprefix(" and tags.`").removesuffix("'").partition("` = '")
        found = self.versions.get(model, {}).values()
        return [deepcopy(version) for version in found if not key or version.tags.get(key) == value]

    def get_model_version(self, model: str, number: str) -> SimpleNamespace:
        if int(number) not in self.versions.get(model, {}):
            raise MlflowException("no such version", error_code=RESOURCE_DOES_NOT_EXIST)
        return deepcopy(self.versions[model][int(number)])

    def delete_model_version(self, model: str, number: str) -> None:
        del self.versions[model][int(number)]

    def get_model_version_by_alias(self, model: str, alias: str) -> SimpleNamespace:
        return self.get_model_version(model, str(self.aliases.get(alias, 0)))

    def set_registered_model_alias(self, model: str, alias: str, number: str) -> None:
        self.get_model_version(model, number)
        self.aliases[alias] = int(number)

    def delete_registered_model_alias(self, model: str, alias: str) -> None:
        del self.aliases[alias]

    def set_model_version_tag(self, model: str, number: str, key: str, value: str) -> None:
        self.get_model_version(model, number)
        self.versions[model][int(number)].tags[key] = value

    def delete_model_version_tag(self, model: str, number: str, key: str) -> None:
        self.versions[model][int(number)].tags.pop(key, None)


@dataclass
class Box:
    """What a registry asks through."""

    models: Models
    home: Path

    def call(self, question: Callable[[Any], Any]) -> Any:
        with two_errors():
            return question(self.models)


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def homes(models: Models) -> Sequence[Registry]:
    """Two homes with one registry: version 1 is the champion, 2 and 3 are to be."""
    registries = [Registry(cast(Outbox, Box(models, Path(name))), "tiny") for name in ("/here", "/there")]
    models.create_registered_model(MODEL, "")
    for number in range(1, 4):
        models.create_model_version(MODEL, "file:///x", tags={DIGEST: f"digest {number}"}, description="")
    registries[0].make_champion(1, "first", instead_of=None)
    return registries


@contextmanager
def intercepted(
    models: Models, before: Callable[[str], None] | None = None, after: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Have functions called before and after every call of any home."""
    nothing = models.before
    models.before, models.after = before or nothing, after or nothing
    try:
        yield
    finally:
        models.before = models.after = nothing


def outcomes(registry: Registry) -> list[tuple[int, str]]:
    return [(attempt.to, attempt.outcome) for attempt in registry.moves.attempts()]


@pytest.mark.parametrize("when", ["before", "after"])
def test_of_two_promoters_one_wins_whenever_the_other_comes_between(
    homes: Sequence[Registry], models: Models, when: str
) -> None:
    """The other does all of its promotion before, or after, one call of the first: each of its calls in turn."""
    here, there = homes
    seen = set()
    for wanted in range(MOST_CALLS):
        here.make_champion(1, "again")
        came, lost = count(), []

        def between(_: str, wanted: int = wanted, came: Any = came, lost: list[int] = lost) -> None:
            if next(came) == wanted:
                try:
                    there.make_champion(3, "theirs", instead_of=1)
                except Overtaken:
                    lost.append(3)

        with intercepted(models, **{when: between}):
            try:
                here.make_champion(2, "ours", instead_of=1)
            except Overtaken as overtaken:
                lost.append(2)
                assert "version 2 was to be champion in place of 1, and another came first: " in str(overtaken)
        if next(came) <= wanted:
            break
        [loser] = lost
        winner = 5 - loser
        assert (here.version_of(CHAMPION), here.version_of(PREVIOUS)) == (winner, 1)
        assert sorted(outcomes(here)[-2:]) == sorted([(winner, "done"), (loser, "lost")]), "both are written down"
        lost_attempt = next(a for a in reversed(here.moves.attempts()) if a.outcome == "lost")
        assert f"version {winner} in place of 1" in lost_attempt.lost_to
        seen.add(winner)
    assert seen == {2, 3}
    assert wanted > 10


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_promoter_that_was_killed_leaves_nothing_undecided(
    homes: Sequence[Registry], models: Models, when: str
) -> None:
    """What it had won is carried out by the next one, which has decided on another champion then."""
    here, there = homes
    for wanted in range(MOST_CALLS):
        here.make_champion(1, "again")
        came = count()

        def kill(_: str, wanted: int = wanted, came: Any = came) -> None:
            if next(came) == wanted:
                raise Killed

        with intercepted(models, **{when: kill}):
            try:
                here.make_champion(2, "ours", instead_of=1)
                break
            except Killed:
                pass
        try:
            there.make_champion(3, "theirs", instead_of=1)
            champion = 3
        except Overtaken as overtaken:
            assert "version 2 in place of 1" in str(overtaken)
            champion = 2
        assert there.version_of(CHAMPION) == champion
        assert there.version_of(PREVIOUS) == 1
        assert "" not in {attempt.outcome for attempt in there.moves.attempts()}
        if champion == 2:
            here.make_champion(2, "ours", instead_of=1)  # the night goes on, and finds it done
        else:
            with pytest.raises(Overtaken):
                here.make_champion(2, "ours", instead_of=1)
        assert here.version_of(CHAMPION) == champion
    assert wanted > 10


def test_a_promoter_that_slept_while_others_went_on_undoes_nothing(homes: Sequence[Registry], models: Models) -> None:
    """Suspended with the alias as good as set, it sets it when two others have moved it."""
    here, there = homes
    slept = []

    def sleep(name: str) -> None:
        if name == "set_registered_model_alias" and here.version_of(CHAMPION) == 1 and not slept:
            slept.append(name)
            with pytest.raises(Overtaken):
                there.make_champion(3, "theirs", instead_of=1)
            there.make_champion(3, "theirs", instead_of=2)

    with intercepted(models, before=sleep):
        here.make_champion(2, "ours", instead_of=1)
    assert slept
    assert (here.version_of(CHAMPION), here.version_of(PREVIOUS)) == (3, 2)


def test_an_alias_that_a_person_moved_is_not_moved_back(homes: Sequence[Registry], models: Models) -> None:
    here, _ = homes
    models.set_registered_model_alias(MODEL, CHAMPION, "3")
    with pytest.raises(Overtaken, match="another came first: version 3, made so in the registry itself"):
        here.make_champion(2, "ours", instead_of=1)
    models.delete_registered_model_alias(MODEL, CHAMPION)
    with pytest.raises(Overtaken, match="somebody who took the alias away in the registry itself"):
        here.make_champion(2, "ours", instead_of=1)
    assert here.version_of(CHAMPION) is None
    here.make_champion(2, "by a person who looked", how="by hand", instead_of=None)
    assert here.version_of(CHAMPION) == 2


def test_a_version_that_was_deleted_before_its_killed_promoter_came_back_is_passed_over(
    homes: Sequence[Registry], models: Models
) -> None:
    here, there = homes

    def kill(name: str) -> None:
        if name == "set_registered_model_alias":
            raise Killed

    with intercepted(models, before=kill), pytest.raises(Killed):
        here.make_champion(2, "ours", instead_of=1)
    models.delete_model_version(MODEL, "2")
    there.make_champion(3, "theirs", instead_of=1)
    assert there.version_of(CHAMPION) == 3
    assert outcomes(there)[-2:] == [(2, "lost"), (3, "done")]
    with pytest.raises(Refused):
        here.make_champion(2, "ours", instead_of=1)


def test_an_attempt_says_who_when_why_and_on_what_evidence(homes: Sequence[Registry]) -> None:
    here, _ = homes
    here.make_champion(2, "better", instead_of=1, evidence={"difference_bpb": -0.01, "refused": False})
    last = here.moves.last_move()
    assert last is not None
    assert (last.to, last.instead_of, last.how, last.why) == (2, 1, "night", "better")
    assert last.evidence == {"difference_bpb": -0.01, "refused": False}
    assert last.home == "/here"
    assert "@" in last.who and last.at_ms > 0
    assert here.recipes() == ["tiny"], "the list of attempts is no recipe's model"


def attempts_of(afters: Sequence[int]) -> list[Attempt]:
    return [
        Attempt(number=n, to=n, instead_of=None, after=min(after, n - 1), how="night", who="", home="", why="")
        for n, after in enumerate(afters, 1)
    ]


@given(st.lists(st.integers(0, 12), max_size=12))
def test_who_has_won_never_depends_on_who_comes_later(afters: list[int]) -> None:
    attempts = attempts_of(afters)
    for known in range(len(attempts) + 1):
        won = winners(attempts[:known])
        assert won == [one for one in winners(attempts) if one.number <= known]
        assert all(one.number <= two.after for one, two in pairwise(won)), "each knew the one before"
