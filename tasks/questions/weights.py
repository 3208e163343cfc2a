"""Which weights of a training stage are nearest before a step, and what a batch costs with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.config.network import ModelConfig
from model.config.phases import phase_after, phases
from model.config.training import ExpertChange
from model.network.transformer import Transformer
from model.tokens.packing import PackedTokens
from model.training import checkpoint
from model.training.checkpoint import Checkpoint
from model.training.scoring import score
from tasks.errors import NightStopped
from tasks.home.contents.pretrained import TRUNK
from tasks.home.records import StageRecord
from tasks.home.stage_table import entry_of
from tasks.home.trunk import parent_in
from tasks.pages.nights.batch import WeightsUsed
from tasks.planning.machine import best_device
from tasks.questions.batch import StepBatch
from tasks.questions.history import History
from tasks.training.trained import CHECKPOINTS, MODEL_CONFIG


@dataclass(frozen=True)
class FoundWeights:
    """Weights of a stage on disk, or from its seed."""

    used: WeightsUsed
    folder: Path | None
    """Of the checkpoint; None for weights from the seed."""


def weights_for(history: History, batch: StepBatch) -> FoundWeights:
    """The newest weights from before a step: a checkpoint of the stage, else what it began with.

    Weights from the seed count for the first step alone, as they know nothing. Without any the newest from after the
    step are taken, and without these those from the seed. Raises NightStopped if there are none at all.
    """
    record, step = batch.training.record, batch.step
    saved = [*checkpoint.discover(record.path / CHECKPOINTS), *checkpoint.discover(record.path / TRUNK)]
    saved.sort(key=lambda found: found.step)
    train: Mapping[str, Any] = record.config["train"]
    facts: dict[str, Any] = {
        "kept": tuple(sorted({found.step for found in saved})), "ended": bool(record.digest),
        "keep_setting": f"{record.stage}.keep_checkpoints", "keep_checkpoints": train.get("keep_checkpoints", 0),
    }  # fmt: skip
    if before := [found for found in saved if found.step < step]:
        return FoundWeights(WeightsUsed(how="kept", step=before[-1].step, **facts), before[-1].path)
    start, from_scratch = first_weights(history, batch)
    if start:
        began_with = start.path.parent.parent.name
        return FoundWeights(WeightsUsed(how="start", step=0, began_with=began_with, **facts), start.path)
    if from_scratch and (step == 1 or not saved):
        return FoundWeights(WeightsUsed(how="seed", step=0, **facts), None)
    if not saved:
        raise NightStopped(
            f"{record.path.name} holds no checkpoint, and what it began with is gone from {history.home / 'data'}: "
            "there are no weights to score its steps with; a night of the recipe makes them again"
        )
    return FoundWeights(WeightsUsed(how="after", step=saved[-1].step, **facts), saved[-1].path)


def first_weights(history: History, batch: StepBatch) -> tuple[Checkpoint | None, bool]:
    """What a stage began with, if it is on the disk, and whether it began from scratch instead."""
    record = batch.training.record
    if entry_of(record.stage).starts_from:
        before = batch.model.trainings[batch.model.trainings.index(batch.training) - 1].record
        return newest(before.path / CHECKPOINTS), False
    if parent := parent_in(record.inputs):
        found = history.record_with_digest(record.stage, parent[0])
        return newest(found.path / parent[1]) if found else None, False
    return None, True


def newest(folder: Path) -> Checkpoint | None:
    return next(reversed(checkpoint.discover(folder)), None)


def model_at(record: StageRecord, num_steps: int, step: int) -> ModelConfig:
    """A stage's configuration once `step` steps of `num_steps` are done. Raises NightStopped if it is not on disk."""
    try:
        last = ModelConfig(**json.loads((record.path / MODEL_CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise NightStopped(
            f"{record.path / MODEL_CONFIG}, the model of the stage, is gone or damaged; a night of the recipe makes it "
            "again"
        ) from error
    goes_on = parent_in(record.inputs) is not None  # its experts were changed in the first night
    changes = [] if goes_on else record.config["train"].get("expert_changes", [])
    return phase_after(phases(last, [ExpertChange(**change) for change in changes], num_steps), step).model


def nats_of(batch: StepBatch, rows: PackedTokens, found: FoundWeights) -> np.ndarray:
    """Of each target of the batch's rows, with these weights, (B, T) float32, 0 where a slot is no target.

    Raises NightStopped if the checkpoint went meanwhile, as those of a training that runs do.
    """
    record, reading = batch.training.record, batch.training.input.reading
    model = Transformer(model_at(record, reading.num_steps, found.used.step), seed=reading.seed)
    try:
        if found.folder:
            checkpoint.load_weights(model, found.folder)
    except FileNotFoundError as error:
        raise NightStopped(f"{found.folder} went while it was read: its night goes on; ask again") from error
    train: Mapping[str, Any] = record.config["train"]
    return score(model.to(best_device()), rows, train["micro_batch_rows"], train.get("precision", "auto"))
