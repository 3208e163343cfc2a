"""Whether a training stage compiles its model: only where the time that it saves is well above what it costs."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from model.config.network import ModelConfig
from model.config.training import TrainConfig
from model.files import write_json
from model.network.transformer import compile_blocks
from model.training.trainer import train_step
from tasks.planning.probe import probe_state

NOTE = "compiling.json"
LEAST_SECONDS = 600.0
"""Of a stage: for a shorter one not even the probe pays."""
PAID_TIMES = 3.0
"""How often the time that compiling took must be saved: the stage compiles again, and once more if it is resumed."""
STEPS = 3
log = logging.getLogger("nightschool")


@dataclass(frozen=True)
class Compiling:
    """What a probe found."""

    seconds: float
    """Of the first step with compiled blocks, over those after it."""
    step_share: float
    """Time of a compiled step over one that is not."""

    def pays(self, stage_seconds: float) -> bool:
        return stage_seconds * (1 - self.step_share) > PAID_TIMES * self.seconds


def try_compiling(model: ModelConfig, config: TrainConfig, tokens: int) -> Compiling:
    """Steps of one micro-batch as they are and compiled, on random ids; raises whatever the compiler raises."""
    state, batch, gently = probe_state(model, config, tokens)

    def step() -> float:
        return train_step(state, batch, gently, num_steps=1_000).seconds

    as_written = min(step() for _ in range(1 + STEPS))
    compile_blocks(state.model)
    first = step()
    compiled = min(step() for _ in range(STEPS))
    return Compiling(first - compiled, compiled / as_written)


def compiles(
    logs: Path, stage: str, model: ModelConfig, config: TrainConfig, tokens: int, stage_seconds: float
) -> bool:
    """Whether to compile. The answer is noted in `logs`: a stage that is resumed must go on as it began."""
    if config.compile_blocks != "auto":
        return config.compile_blocks == "always"
    note = logs / NOTE
    if note.exists():
        return bool(json.loads(note.read_text())["compiles"])
    found, problem = None, ""
    if stage_seconds >= LEAST_SECONDS:
        write_json(note, {"compiles": False, "problem": "the probe did not end"})  # should it take the process with it
        try:
            found = try_compiling(model, config, tokens)
        except Exception as error:  # no compiler, or one that fails, in whatever way it says so
            problem = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            log.info("%-11s blocks are not compiled: %s", stage, problem)
    chosen = found is not None and found.pays(stage_seconds)
    if found:
        log.info("%-11s blocks are %scompiled: %.0f s of compiling for steps at %.2f of their time",
                 stage, "" if chosen else "not ", found.seconds, found.step_share)  # fmt: skip
    write_json(note, {"compiles": chosen, "probe": asdict(found) if found else None, "problem": problem})
    return chosen
