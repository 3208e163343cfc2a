"""How a training stage computes its experts: as the recipe says, or as a probe at its start finds fastest."""

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

CHOICE_FILE = "expert-path.json"
log = logging.getLogger("nightschool")


def choose_expert_path(
    logs: Path, stage: str, model: ModelConfig, config: TrainConfig, row_length_tokens: int
) -> ModelConfig:
    """The model with the path that the whole stage computes its experts by.

    Paths may round differently, so the choice is noted in `logs`, the stage's folder of logs: a stage that is resumed
    keeps the one it began with. `stage` is its name, for messages.
    """
    if model.dense or model.expert_path != "auto":
        return model
    noted = logs / CHOICE_FILE
    if not noted.exists():
        seconds = expert_seconds(model, config.micro_batch_rows * row_length_tokens, config.precision, best_device())
        chosen, loop_share = fastest(seconds), seconds["loop"] / seconds["grouped"]
        log.info("%-11s experts are computed %s: a loop takes %.2f of the time of grouped products",
                 stage, {"loop": "one by one", "grouped": "by grouped products"}[chosen], loop_share)  # fmt: skip
        write_json(noted, {"expert_path": chosen, "seconds": seconds})
    return replace(model, expert_path=json.loads(noted.read_text())["expert_path"])
