"""Faults of models and of what a night reports to: worse models, a closed gate, a store or a notifier that is away."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import time_machine
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from benchmarks.year.data_faults import HOUR
from benchmarks.year.finding import Finding, Year
from benchmarks.year.home import NAME
from flows.promote_model import promote_model
from tasks.night.duty.alarms import ALARM
from tasks.night.report import NightReport
from tasks.recipes.recipe import Recipe
from tasks.tracking.moves.ledger import Overtaken

UNTRAINED = {"pretrain.start": "scratch", "pretrain.num_tokens": 2_048, "sft.num_tokens": 2_048, "promote.mode": "auto"}
TOO_FAST = 1.0
"""A learning rate at which the model forgets."""
NOBODY = "json://127.0.0.1:9"
UNREACHABLE_GAIN_BPB = 5.0


def worse_model(year: Year, at: datetime) -> Finding:
    """A model that was hardly trained, and a trunk that was ruined: neither is promoted, and the trunk goes back."""
    wrong: list[str] = []
    year.deliver(at)
    champion = year.champion()
    poor = year.good_night(at, wrong, "the night of a poor model", overrides=UNTRAINED)
    year.deliver(at)
    fast = replace(year.home.recipe.pretrain, optim=replace(year.home.recipe.pretrain.optim, peak_lr=TOO_FAST))
    ruined = year.night(at + HOUR, recipe=replace(year.home.recipe, pretrain=fast))
    if year.champion() != champion:
        wrong.append(f"version {year.champion()} was promoted in place of {champion}")
    for ended, what in ((poor, "a poor model"), (ruined, "a ruined one")):
        if isinstance(ended.came, NightReport) and not ended.came.decision.get("clearly_worse"):
            wrong.append(f"{what} was not told to be worse: {ended.came.decision['reason']}")
    if isinstance(ruined.came, NightReport) and not (last := year.home.outcomes()[-1]).went_back:
        wrong.append(f"the trunk did not go back: {last.reason}")
    return Finding(message=poor.sentence("^worse: "), wrong=tuple(wrong))


def closed(recipe: Recipe) -> Recipe:
    """The recipe with a gate that asks for more than there is to gain, and one who hears of it at once."""
    promote = replace(recipe.promote, min_gain_bpb=UNREACHABLE_GAIN_BPB)
    return replace(recipe, promote=promote, alarms=replace(recipe.alarms, gate_nights=2, repeat_days=0.0))


def closed_gate(year: Year, at: datetime) -> Finding:
    """The gate asks for a gain that no night ever made: it says so, and an alarm is sounded."""
    wrong: list[str] = []
    year.deliver(at)
    ended = year.good_night(at, wrong, recipe=closed(year.home.recipe))
    entries = year.home.journal.entries()
    told = [entry for entry in entries if (entry.get("event"), entry.get("kind")) == (ALARM, "gate")]
    if not told and sum(outcome.difference_bpb is not None for outcome in year.home.outcomes()) > 1:
        wrong.append("no alarm was sounded")
    return Finding(message=ended.sentence("the gate can hardly pass"), wrong=tuple(wrong))


def store_away(year: Year, at: datetime) -> Finding:
    """The store is away from pretraining on: the model waits for the next night. Then two promote at once."""
    wrong: list[str] = []
    year.deliver(at)
    before = set(folders(year))

    def asked(client: MlflowClient, name: str) -> Any:
        found = object.__getattribute__(client, name)
        return refusing if callable(found) and not name.startswith("_") and is_away() else found

    def is_away() -> bool:
        return any(name.startswith("pretrain@") for name in set(folders(year)) - before)

    def refusing(*arguments: object, **named: object) -> None:
        raise MlflowException("connection refused")

    newest = max(year.home.registry.versions())
    with mock.patch.object(MlflowClient, "__getattribute__", asked):
        waiting = year.good_night(at, wrong)
    year.deliver(at)
    year.good_night(at + HOUR, wrong, "the night with the store back")
    if (registered := max(year.home.registry.versions()) - newest) != 2:
        wrong.append(f"{registered} models were registered, it is 2")
    wrong += two_promoters(year, at + 2 * HOUR)
    return Finding(message=waiting.sentence("did not answer"), wrong=tuple(wrong))


def two_promoters(year: Year, at: datetime) -> list[str]:
    """Two who decided on the same champion: one wins, the other is told. Then the champion is put back."""
    champion, wrong = year.champion(), []
    others = [version for version in year.home.registry.versions() if version != champion][:2]
    if champion is None or len(others) < 2:
        return []

    def attempt(version: int) -> bool:
        try:
            year.home.registry.make_champion(version, "a race", how="by hand", instead_of=champion)
        except Overtaken:
            return False
        return True

    with time_machine.travel(at), ThreadPoolExecutor(2) as pool:
        won = list(pool.map(attempt, others))
        if sum(won) != 1 or year.champion() != others[won.index(True)]:
            wrong.append(f"of two promoters {sum(won)} won, and version {year.champion()} is champion")
        promote_model(NAME, champion)
    return wrong


def failing_notifier(year: Year, at: datetime) -> Finding:
    """An alarm is due and nobody takes it: the night ends well."""
    wrong: list[str] = []
    year.deliver(at)
    with mock.patch.dict(os.environ, {"NIGHTSCHOOL_NOTIFY": NOBODY}):
        ended = year.good_night(at, wrong, recipe=closed(year.home.recipe))
    return Finding(message=ended.sentence("could not be told"), wrong=tuple(wrong))


def folders(year: Year) -> list[str]:
    return [path.name for path in Path(year.home.home / "data").glob("*@*")]
