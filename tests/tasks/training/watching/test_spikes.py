"""Incidents of a training on real text: what is told of them, once, whatever broke the stage off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.config.training import TrainConfig
from model.tokens.packing import IGNORED
from model.training import trainer
from model.training.batches import Batch
from model.training.state import NonFiniteLoss
from tasks.errors import Diverged
from tasks.home.contents.story import told_events
from tasks.training import run as training
from tasks.training.watching.spikes import INCIDENTS, detector_after
from tasks.training.watching.watcher import GO_ON
from tests.tasks.prepared import Prepared
from tests.tasks.training_runs import Killed, at_step, kill, run, train

pytestmark = pytest.mark.usefixtures("without_prefect")
STEPS, STRUCK = 90, 70


@pytest.fixture
def random_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """From step STRUCK on, the labels of three steps are drawn at random."""
    batch_of_step = trainer.batch_of_step

    def struck(packed: Any, batch_rows: int, seed: int, step: int, *args: Any) -> Batch:
        batch = batch_of_step(packed, batch_rows, seed, step, *args)
        if not STRUCK <= step + 1 < STRUCK + 3:
            return batch
        drawn = torch.randint(0, 300, batch.labels_BT.shape, generator=torch.Generator().manual_seed(step))
        return replace(batch, labels_BT=drawn.where(batch.labels_BT != IGNORED, IGNORED))

    monkeypatch.setattr(trainer, "batch_of_step", struck)


def long_enough(prepared: Prepared) -> TrainConfig:
    """STEPS steps, of a stage that keeps no trunk, which would be an event; checkpoints are far apart."""
    recipe, _ = prepared
    per_step = recipe.pretrain.batch_rows * recipe.data.sequence_length_tokens
    return replace(recipe.pretrain, num_tokens=STEPS * per_step, start="scratch", checkpoint_every_steps=30)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "logs" / INCIDENTS).read_text().splitlines()]


@pytest.mark.usefixtures("random_labels")
def test_a_spike_is_told_with_its_evidence_and_the_same_after_a_kill(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = long_enough(prepared)
    train(run(tmp_path / "whole"), prepared, config)
    [event] = told_events(tmp_path / "whole")
    assert event["kind"] == "benign"
    assert STRUCK <= event["step"] < STRUCK + 3
    assert "(usual " in event["detail"]
    *evidence, over = lines_of(tmp_path / "whole")
    assert (over["judgement"], over["first_step"], over["last_step"], over["num_steps"]) == (
        "benign", STRUCK, STRUCK + 2, 3,
    )  # fmt: skip
    [peak] = [line for line in evidence if line["step"] == event["step"]]
    assert sum(share["batch"] for share in peak["shares"].values()) == pytest.approx(1)
    assert sum(share["expected"] for share in peak["shares"].values()) == pytest.approx(1)
    costs = [row["loss"] for row in peak["rows"]]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > over["usual_loss"]

    for step in (STRUCK + 2, STRUCK + 12):  # in the middle of it, and when all was told but no checkpoint holds it
        with monkeypatch.context() as patch, pytest.raises(Killed):
            at_step(step, kill, patch)
            train(run(tmp_path / "parts"), prepared, config)
    train(run(tmp_path / "parts"), prepared, config)
    assert told_events(tmp_path / "parts") == told_events(tmp_path / "whole")
    assert lines_of(tmp_path / "parts") == [*evidence, over]


def test_a_clean_training_tells_nothing(prepared: Prepared, tmp_path: Path) -> None:
    config = long_enough(prepared)
    train(run(tmp_path / "clean"), prepared, config)
    assert not told_events(tmp_path / "clean")
    assert not (tmp_path / "clean" / "logs" / INCIDENTS).exists()
    points = [json.loads(line) for line in (tmp_path / "clean" / "logs" / "curve.jsonl").read_text().splitlines()]
    assert detector_after(points).incident is None
    assert np.isfinite([value for point in points for value in point.values()]).all()


def test_of_a_loss_that_is_no_number_the_rows_are_told(prepared: Prepared, tmp_path: Path) -> None:
    wild = replace(prepared[0].pretrain.optim, peak_lr=1e6, clip_norm=1e9)
    config = replace(long_enough(prepared), optim=wild, precision="fp32")
    with pytest.raises(Diverged) as raised:
        train(run(tmp_path / "wild"), prepared, config)
    [event] = told_events(tmp_path / "wild")
    assert event["kind"] == "no_number"
    assert f"step {event['step']}: loss " in str(raised.value)
    assert event["detail"].startswith(("no finite loss in ", "the loss of every row is finite, the gradient is not"))


def test_rows_without_a_finite_loss_are_named(prepared: Prepared, tmp_path: Path) -> None:
    started = training.prepare(run(tmp_path), "pretrain", prepared[1], prepared[0].model, prepared[0].pretrain)
    nats = np.zeros((9, 4), dtype=np.float32)
    nats[1:8, 2] = np.nan
    error = NonFiniteLoss("loss nan", nats)
    error.rows_B = np.arange(100, 109)
    assert training.spike_watcher(started).after_non_finite(3, error) == GO_ON
    [event] = told_events(tmp_path)
    assert (event["step"], event["kind"]) == (3, "no_number")
    expected = "no finite loss in 7 of 9 rows: packed rows 101, 102, 103, 104, 105 and 2 rows more"
    assert event["detail"] == expected
