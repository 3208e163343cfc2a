"""How a training stage computes its experts: what the recipe says, or what a probe at its start finds."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

from model.config.network import ModelConfig
from model.config.training import TrainConfig
from model.experts.fastest_path import expert_seconds, fastest
from model.files import write_json
from tasks.planning.machine import best_device

NOTE = "expert-path.json"
log = logging.getLogger("nightschool")


def settled(logs: Path, stage: str, model: ModelConfig, config: TrainConfig, tokens: int) -> ModelConfig:
    """The model with a path that is settled for the whole stage.

    Paths may round differently, so the choice is noted in `logs`: a stage that is resumed keeps the one it began with.
    """
    if model.dense or model.expert_path != "auto":
        return model
    note = logs / NOTE
    if not note.exists():
        seconds = expert_seconds(model, config.micro_batch_rows * tokens, config.precision, best_device())
        chosen, others = fastest(seconds), seconds["loop"] / seconds["grouped"]
        log.info("%-11s experts are computed %s: a loop takes %.2f of the time of grouped products",
                 stage, {"loop": "one by one", "grouped": "by grouped products"}[chosen], others)  # fmt: skip
        write_json(note, {"expert_path": chosen, "seconds": seconds})
    return replace(model, expert_path=json.loads(note.read_text())["expert_path"])
