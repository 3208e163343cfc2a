"""Training stages without Prefect and MLflow, and ways to break them off."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from model.config.training import TrainConfig
from tasks.home.journal import Journal
from tasks.stage import Outcome, StageRun
from tasks.tracking.tracker import DictTracker
from tasks.training import run as training
from tasks.training.trained import final_weights
from tasks.training.training_run import TrainingRun
from tasks.training.watching.watcher import Watcher
from tests.tasks.prepared import Prepared


class Killed(BaseException):
    """Nothing in the stage sees it coming."""


def kill() -> None:
    raise Killed


def interrupt() -> None:
    """Send this process Ctrl-C, as a terminal would."""
    os.kill(os.getpid(), signal.SIGINT)


def run(folder: Path) -> StageRun:
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    night = SimpleNamespace(recipe=SimpleNamespace(name="tiny"), journal=Journal(folder), token=0)
    return StageRun(night=night, folder=folder, tracker=DictTracker(), stage="pretrain")


def train(stage: StageRun, prepared: Prepared, config: TrainConfig | None = None) -> Outcome:
    recipe, tokens = prepared
    return finished(training.prepare(stage, "pretrain", tokens, recipe.model, config or recipe.pretrain))


def finished(started: TrainingRun, *watchers: Watcher) -> Outcome:
    """Train to the end and finish."""
    training.drain(started, watchers)
    return training.finish(started)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(final_weights(folder) / "model.safetensors")


def at_step(number: int, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `action` done once the optimizer has made a step, before anything is made of it."""
    loop = training.train

    def noisy(*arguments: object) -> Iterator[object]:
        for metrics in loop(*arguments):
            if metrics.number == number:
                action()
            yield metrics

    monkeypatch.setattr(training, "train", noisy)
