"""Moves of the champion alias, one after the other: of several homes that promote at once, one does.

MLflow sets an alias without looking at what it was. Versions of a registered model, though, get their numbers from the
database, one after the other, each with its tags at once. So an attempt is a version of a registered model that is for
this alone, and says what was read before it: the champion, and the number of the newest attempt. It has won if no
attempt that has won lies between that number and its own, which everybody who reads the list finds alike. One that won
and was killed before it moved the alias is carried out by the next attempt. Nothing here waits, and no clock counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar
from uuid import uuid4

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tasks.errors import NightStopped, Refused

LEDGER_PREFIX = "nightschool.moves-"
"""No recipe's model is named like this."""
LEDGER_DESCRIPTION = "Who moved the champion alias, when, why and on what evidence; the newest attempt is the last one"
How = Literal["night", "by hand", "rollback"]
Outcome = Literal["done", "lost", ""]
"""done: the alias moved; lost: it did not; empty: nobody has looked yet, or the attempt was killed."""
TAG = "nightschool.move."
OUTCOME, TOKEN = f"{TAG}outcome", f"{TAG}token"
NONE = "none"
T = TypeVar("T")


class Overtaken(NightStopped):
    """The champion is another one than what was decided on; the alias was not moved."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt to make a version the champion."""

    number: int = 0
    """Of the attempt, from 1 on."""
    to: int
    instead_of: int | None
    """The champion that was decided on; None if there was none."""
    after: int = 0
    """Number of the newest attempt that was there when the champion was read."""
    how: How
    who: str
    """USER@HOST."""
    home: str
    why: str
    evidence: Mapping[str, float | bool] = field(default_factory=dict)
    at_ms: int = 0
    """Milliseconds since the epoch, by the registry's clock."""
    outcome: Outcome = ""
    lost_to: str = ""
    """What came first, of one that was lost."""

    def __str__(self) -> str:
        return f"attempt {self.number}, version {self.to} in place of {self.instead_of or NONE}, by {self.who}"

    def as_tags(self) -> dict[str, str]:
        values = {
            "to": str(self.to), "instead_of": str(self.instead_of or NONE), "after": str(self.after), "how": self.how,
            "who": self.who, "home": self.home, "evidence": json.dumps(dict(self.evidence)), "lost_to": self.lost_to,
        }  # fmt: skip
        return {f"{TAG}{name}": value for name, value in values.items() if value}

    @classmethod
    def from_version(cls, version: Any) -> Attempt | None:
        """None for a version that somebody else put there."""
        tags = {name.removeprefix(TAG): value for name, value in version.tags.items() if name.startswith(TAG)}
        try:
            before = tags["instead_of"]
            return cls(
                number=int(version.version), to=int(tags["to"]), instead_of=None if before == NONE else int(before),
                after=int(tags["after"]), how=tags["how"], who=tags["who"], home=tags["home"],
                why=str(version.description or ""), evidence=json.loads(tags["evidence"]),
                at_ms=int(version.creation_timestamp), outcome=tags.get("outcome", ""),
                lost_to=tags.get("lost_to", ""),
            )  # fmt: skip
        except (KeyError, ValueError):
            return None


def winners(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Those that have won, oldest first, of all attempts in order. What was given up at once never took part."""
    won: list[Attempt] = []
    for attempt in attempts:
        if attempt.outcome != "lost" and (not won or won[-1].number <= attempt.after):
            won.append(attempt)
    return won


class Aliases(Protocol):
    """What an attempt is about."""

    def champion_number(self) -> int | None: ...

    def carry_out(self, attempt: Attempt) -> None:
        """Move the aliases as an attempt says; done twice it is the same. Raises Refused for an unknown version."""


class Ledger:
    """Attempts on the champion alias of one recipe."""

    def __init__(self, ask: Callable[[Callable[[MlflowClient], Any]], Any], recipe: str, aliases: Aliases) -> None:
        """ask: puts a question to the registry; again if no answer came, so each must do no harm when asked twice."""
        self._ask = ask
        self._aliases = aliases
        self.model = f"{LEDGER_PREFIX}{recipe}"

    def attempts(self) -> list[Attempt]:
        """All of them, in order."""
        found = self._ask(lambda client: list(client.search_model_versions(f"name='{self.model}'")))
        attempts = [attempt for version in found if (attempt := Attempt.from_version(version))]
        return sorted(attempts, key=lambda attempt: attempt.number)

    def last_move(self) -> Attempt | None:
        """The newest attempt that moved the alias."""
        return next((attempt for attempt in reversed(self.attempts()) if attempt.outcome == "done"), None)

    def move(self, attempt: Attempt, version: Any) -> None:
        """Move the champion alias as an attempt says, if the champion is still what it was decided on.

        attempt: without its number, and without that of the newest one before it.
        version: MLflow's, of the one that is to be champion.
        Raises Overtaken if the champion is another one, and Refused for an unknown version.
        """
        before = self._settled()
        attempt = replace(attempt, after=before[-1].number if before else 0)
        champion = self._aliases.champion_number()
        if champion == attempt.to:
            return
        if champion != attempt.instead_of:
            self._give_up(attempt, version, self._what_came_first(champion))
        mine = self._numbered(attempt, version)
        won = winners(self.attempts())
        if all(mine.number != one.number for one in won):
            first = next(one for one in won if one.number > mine.after)
            self._lose(mine, str(first))
        champion = self._aliases.champion_number()
        if champion not in (mine.instead_of, mine.to):
            self._lose(mine, in_the_registry(champion))
        self._aliases.carry_out(mine)
        self._note(mine, "done")
        self._give_way(mine)

    def _settled(self) -> list[Attempt]:
        """All attempts, after the last one that has won is carried out, if whoever made it was killed before that."""
        attempts = self.attempts()
        open_one = next((one for one in reversed(winners(attempts)) if not one.outcome), None)
        if open_one is None or open_one.number != winners(attempts)[-1].number:
            return attempts
        champion = self._aliases.champion_number()
        try:
            if champion == open_one.instead_of:
                self._aliases.carry_out(open_one)
            elif champion != open_one.to:
                raise Refused(in_the_registry(champion))
            self._note(open_one, "done")
        except Refused as refused:
            self._note(open_one, "lost", str(refused))
        return self.attempts()

    def _give_way(self, mine: Attempt) -> None:
        """If this process was suspended while others moved the alias on, it has just undone that: put it right."""
        newest = winners(self.attempts())[-1]
        if newest.number > mine.number and newest.outcome == "done" and self._aliases.champion_number() == mine.to:
            self._aliases.carry_out(newest)

    def _what_came_first(self, champion: int | None) -> str:
        moved = next(iter(reversed(winners(self.attempts()))), None)
        return str(moved) if moved and moved.to == champion else in_the_registry(champion)

    def _numbered(self, attempt: Attempt, version: Any) -> Attempt:
        """The attempt with the number that it got; asked twice it is made once."""
        token = uuid4().hex

        def make(client: MlflowClient) -> int:
            make_ledger(client, self.model)
            there = client.search_model_versions(f"name='{self.model}' and tags.`{TOKEN}` = '{token}'")
            for made in there:
                return int(made.version)
            tags = {**attempt.as_tags(), TOKEN: token, **({OUTCOME: attempt.outcome} if attempt.outcome else {})}
            source = f"models:/{version.name}/{version.version}"  # needs no run, which may have been cleaned away
            made = client.create_model_version(self.model, source, tags=tags, description=attempt.why)
            return int(made.version)

        return replace(attempt, number=self._ask(make))

    def _give_up(self, attempt: Attempt, version: Any, lost_to: str) -> None:
        self._numbered(replace(attempt, outcome="lost", lost_to=lost_to), version)
        raise Overtaken(what_came_first(attempt, lost_to))

    def _lose(self, mine: Attempt, lost_to: str) -> None:
        self._note(mine, "lost", lost_to)
        raise Overtaken(what_came_first(mine, lost_to))

    def _note(self, attempt: Attempt, outcome: Outcome, lost_to: str = "") -> None:
        def note(client: MlflowClient) -> None:
            for name, value in ((f"{TAG}lost_to", lost_to), (OUTCOME, outcome)):
                if value:
                    client.set_model_version_tag(self.model, str(attempt.number), name, value)

        self._ask(note)


def make_ledger(client: MlflowClient, model: str) -> None:
    """Make the registered model of the attempts, unless it is there."""
    try:
        client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        try:
            client.create_registered_model(model, description=LEDGER_DESCRIPTION)
        except MlflowException as other:
            if other.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def in_the_registry(champion: int | None) -> str:
    if champion is None:
        return "somebody who took the alias away in the registry itself"
    return f"version {champion}, made so in the registry itself"


def what_came_first(attempt: Attempt, lost_to: str) -> str:
    return (
        f"version {attempt.to} was to be champion in place of {attempt.instead_of or NONE}, and another came first: "
        f"{lost_to}; the alias was not moved"
    )
