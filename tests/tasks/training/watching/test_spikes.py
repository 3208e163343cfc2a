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
from tasks.home.contents.story import told_events
from tasks.training.watching.spikes import INCIDENTS, detector_after
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
