"""Means over steps that a chart shows are means of what its steps logged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from model.dynamics.smoothing import EMA_WEIGHT
from model.training.trainer import StepMetrics
from tasks.training import meters
from tasks.training import run as training
from tests.reference.meters import clipped_share, loss_average
from tests.tasks.prepared import Prepared
from tests.tasks.training_runs import run, train

pytestmark = pytest.mark.usefixtures("without_prefect")
WINDOW = 5
"""In place of a hundred steps, so that it moves."""


def test_logged_means_are_those_of_the_last_steps(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = training.train

    def often_clipped(*arguments: object) -> Iterator[StepMetrics]:
        for step in loop(*arguments):
            yield replace(step, clipped=step.number % 3 != 0)

    monkeypatch.setattr(training, "train", often_clipped)
    monkeypatch.setattr(meters, "CLIPPED_STEPS", WINDOW)
    stage = run(tmp_path / "stage")
    train(stage, prepared)
    logged = stage.tracker.logged_metrics
    clipped, losses = ([value for _, value in logged[f"train/{name}"]] for name in ("clipped", "loss"))
    assert clipped == [float(number % 3 != 0) for number in range(1, 13)]
    for number in range(1, 13):
        means = {name: dict(logged[f"train/{name}"])[number] for name in ("clipped_share", "loss_ema")}
        assert means["clipped_share"] == clipped_share([value == 1 for value in clipped[:number]], WINDOW)
        assert means["loss_ema"] == pytest.approx(loss_average(losses[:number], EMA_WEIGHT))
