"""How much of a step was spent waiting for its rows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from model.training import trainer
from model.training.state import TrainState
from model.training.trainer import train
from tests.model.tiny import packed_rows, tiny_config, tiny_training


@pytest.mark.parametrize(("loading", "share"), [(0.0, 0.0), (1.0, 0.25), (27.0, 0.9)])
def test_a_slow_loader_shows_in_the_share_of_waiting(
    monkeypatch: pytest.MonkeyPatch, loading: float, share: float
) -> None:
    """By a clock that only the loader and the model move: the model takes three seconds a step."""
    clock, load, compute = [0.0], trainer.batch_of_step, trainer.accumulate_gradients

    def slow_load(*arguments: object) -> object:
        clock[0] += loading
        return load(*arguments)

    def slow_compute(*arguments: object) -> object:
        clock[0] += 3.0
        return compute(*arguments)

    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(trainer, "batch_of_step", slow_load)
    monkeypatch.setattr(trainer, "accumulate_gradients", slow_compute)
    config = tiny_training()
    for step in train(TrainState.create(tiny_config(), config), packed_rows(), config):
        metrics = step.as_metrics()
        assert metrics["train/data_wait_share"] == pytest.approx(share)
        assert metrics["train/tokens_per_s"] == pytest.approx(step.tokens / (3 + loading))
