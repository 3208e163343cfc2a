"""Whether a training stage compiles its model: only where the time that it saves is well above what it costs."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from model.config.network import ModelConfig
from model.config.training import TrainConfig
from model.files import write_json
from model.network.transformer import compile_blocks
from model.precision import product_dtype
from model.training.trainer import train_step
from tasks.planning.machine import best_device
from tasks.planning.probe import probe_state

CHOICE_FILE = "compiling.json"
MIN_STAGE_SECONDS = 600.0
"""Not even the probe pays in a shorter stage."""
MIN_SAVING = 3.0
"""Times of compiling that must be saved: the stage compiles again after the probe, and once more if it is resumed."""
PROBE_STEPS = 3
"""Steps of each kind after the first, of which the fastest counts."""
log = logging.getLogger("nightschool")


@dataclass(frozen=True)
class CompileProbe:
    """What compiling costs and saves, as measured."""

    seconds: float
    """Time of compiling: of the first compiled step less that of a later one."""
    step_share: float
    """Time of a compiled step, as a share of one that is not."""

    def pays(self, stage_seconds: float) -> bool:
        """Whether compiling saves well more than it costs, in a stage that would last so long without."""
        return stage_seconds * (1 - self.step_share) > MIN_SAVING * self.seconds


def probe_compiling(model: ModelConfig, config: TrainConfig, row_length_tokens: int) -> CompileProbe:
    """Time steps of one micro-batch as they are and compiled, on random ids; raises whatever the compiler raises."""
    state, batch, probe_config = probe_state(model, config, row_length_tokens)

    def step() -> float:
        return train_step(state, batch, probe_config, num_steps=1_000).seconds

    uncompiled = min(step() for _ in range(1 + PROBE_STEPS))
    compile_blocks(state.model)
    first = step()
    compiled = min(step() for _ in range(PROBE_STEPS))
    return CompileProbe(first - compiled, compiled / uncompiled)


def should_compile(
    logs: Path, stage: str, model: ModelConfig, config: TrainConfig, row_length_tokens: int, planned_seconds: float
) -> bool:
    """Whether a stage compiles its blocks.

    The answer is noted in `logs`, the stage's folder of logs: a stage that is resumed must go on as it began.
    `stage` is its name, for messages; `planned_seconds` how long it is planned to train without compiling.
    """
    if not model.dense and product_dtype(config.precision, best_device()) == torch.float32:
        if config.compile_blocks == "always":
            log.info("%-11s blocks are not compiled: PyTorch compiles grouped products in bf16 alone, and this stage "
                     "computes in fp32; set precision: bf16", stage)  # fmt: skip
        return False
    if config.compile_blocks != "auto":
        return config.compile_blocks == "always"
    noted = logs / CHOICE_FILE
    if noted.exists():
        return bool(json.loads(noted.read_text())["compiles"])
    probe, problem = None, ""
    if planned_seconds >= MIN_STAGE_SECONDS:
        write_json(noted, {"compiles": False, "problem": "the probe did not end"})  # should it take the process with it
        try:
            probe = probe_compiling(model, config, row_length_tokens)
        except Exception as error:  # no compiler, or one that fails with errors of any kind
            problem = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            log.info("%-11s blocks are not compiled: %s", stage, problem)
    chosen = probe is not None and probe.pays(planned_seconds)
    if probe:
        log.info("%-11s blocks are %scompiled: %.0f s of compiling for steps at %.2f of their time",
                 stage, "" if chosen else "not ", probe.seconds, probe.step_share)  # fmt: skip
    write_json(noted, {"compiles": chosen, "probe": asdict(probe) if probe else None, "problem": problem})
    return chosen
