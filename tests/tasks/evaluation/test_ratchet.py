"""Limits hold for the champions of all nights together: many small losses are refused as one large one is."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from tasks.evaluation.budget import Allowance
from tasks.evaluation.gate import Evidence, decide
from tasks.evaluation.past import carried_losses
from tasks.evaluation.verdict import Decision
from tasks.home.journal import BY_HAND, DECIDED
from tasks.recipes.stage_configs import PromoteConfig
from tests.tasks.rows import scored_documents

CONFIG = PromoteConfig(resamples=100)
NUM_BYTES = np.full(120, 300.0)
NATS = NUM_BYTES * np.random.default_rng(0).lognormal(0, 0.2, 120)
HARMED = np.arange(120) % 2 == 0
DOMAINS = pl.Series(["en", "zh"] * 60)
FIGURE = "eval/repetition_share"
Entry = dict[str, Any]


def night(entries: list[Entry], domain_factor: float = 0.97, more_repetition: float = 0.0) -> Decision:
    """A night that is better overall than the champion, which is the version promoted last; its line is added."""
    champion = next((e["version"] for e in reversed(entries) if e.get("promoted") or e["event"] == BY_HAND), None)
    factor = np.where(HARMED, domain_factor, 0.95)
    ours, theirs = (scored_documents(NATS * f, NUM_BYTES).with_columns(domain=DOMAINS) for f in (factor, 1.0))
    decision = decide(ours, theirs, CONFIG, Evidence(
        Allowance(0.05, 0.0, 1.0), {FIGURE: 0.5 + more_repetition}, {FIGURE: 0.5},
        carried=carried_losses(entries, "demo", champion),
    ))  # fmt: skip
    entries.append({
        "event": DECIDED, "recipe": "demo", "version": len(entries) + 1, "promoted": decision.promoted,
        "losses": decision.losses,
    })  # fmt: skip
    return decision


def test_a_rise_that_no_night_is_refused_for_is_refused_once_it_adds_up() -> None:
    entries: list[Entry] = []
    nights = [night(entries, more_repetition=0.1) for _ in range(4)]
    assert [decision.promoted for decision in nights] == [True, True, False, False]
    assert "beside +0.2 that the champion lost against the best one before it, allowed 0.25" in nights[2].reason
    assert night(entries, more_repetition=-0.15).promoted, "a gain makes up for it"
    assert night(entries, more_repetition=0.1).promoted
    assert entries[-1]["losses"]["max_repetition_rise"] == pytest.approx(0.15)


def test_a_domain_that_gets_worse_by_less_than_its_tolerance_each_night_is_refused_once_it_adds_up() -> None:
    entries: list[Entry] = []
    nights = [night(entries, domain_factor=1.004) for _ in range(4)]
    assert [decision.promoted for decision in nights] == [True, True, False, False]
    assert "in pretrain/en (60 documents" in nights[2].reason and "the champion lost" in nights[2].reason


def test_what_a_person_promotes_or_another_recipe_lost_is_not_carried() -> None:
    entries: list[Entry] = []
    for _ in range(3):
        night(entries, more_repetition=0.1)
    assert carried_losses(entries, "demo", 3)["max_repetition_rise"] == pytest.approx(0.3)
    assert carried_losses(entries, "other", 3) == carried_losses(entries, "demo", None) == {}
    back = {"event": BY_HAND, "recipe": "demo", "version": 2, "rolled_back": 3}
    assert carried_losses([*entries, back], "demo", 2)["max_repetition_rise"] == pytest.approx(0.2)
    assert carried_losses([*entries, {**back, "version": 3, "rolled_back": None}], "demo", 3) == {}
    entries.append({**back, "version": 3, "rolled_back": None})
    assert night(entries, more_repetition=0.1).promoted


def test_a_figure_that_is_not_there_leaves_what_was_lost_as_it_was() -> None:
    carried = {"max_more_dead_experts": 1.0, "max_repetition_rise": 0.2}
    scores = scored_documents(NATS, NUM_BYTES)
    found = decide(scores, scores, CONFIG, Evidence(Allowance(0.05, 0.0, 1.0), {}, {}, carried=carried))
    assert found.losses["max_more_dead_experts"] == 1.0 and found.losses["max_repetition_rise"] == 0.2
