"""Two models are compared in turns, so that a machine that is busy for a while slows both."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace

import pytest

from model.config.network import ModelConfig
from tasks.planning import plan
from tests.model.tiny import SLOTS, tiny_config, tiny_training


def test_a_share_of_time_does_not_follow_the_load_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The load changes from turn to turn by up to ten times; the other model always takes half the time."""
    other, clock, generator = tiny_config(num_experts=2), itertools.count(), random.Random(1)
    load = itertools.cycle([generator.uniform(1, 10) for _ in range(31)])
    turns: list[float] = []

    def step(state: ModelConfig, *_: object, **__: object) -> SimpleNamespace:
        if state != other:
            turns.append(next(load))
        return SimpleNamespace(seconds=turns[-1] * (0.5 if state == other else 1.0))

    monkeypatch.setattr(plan, "probe_state", lambda model, config, _: (model, None, config))
    monkeypatch.setattr(plan, "train_step", step)
    monkeypatch.setattr(plan.time, "perf_counter", lambda: float(next(clock)))
    assert plan.time_shares(tiny_config(), other, tiny_training(), SLOTS) == (0.5, 0.5)
    assert len(turns) > plan.LEAST_TURNS
