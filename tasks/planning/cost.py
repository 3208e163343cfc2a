"""What a training stage will cost in steps, time and memory. Whether it compiles its blocks depends on the time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from model.config.network import ModelConfig
from model.config.phases import phases
from model.config.training import TrainConfig
from tasks.planning.machine import best_device
from tasks.planning.memory import (
    BYTES_PER_CHECKPOINTED_PARAMETER,
    BYTES_PER_PARAMETER,
    FIRST_STEP_BYTES,
    HELD_BEFORE_BYTES,
    activation_bytes,
)
from tasks.planning.probe import seconds_per_token
from tasks.recipes.pretrain_config import PretrainConfig


@dataclass(frozen=True)
class StagePlan:
    """Cost of one training stage: planned before it starts, or actual once it ended."""

    steps: int
    """Optimizer steps."""
    seconds: float
    peak_memory_bytes: int
    """Of one rank: of its accelerator if there is one, else of main memory."""

    def as_metrics(self, prefix: str) -> dict[str, float]:
        """Under the names that go to the tracker; memory in MB."""
        return {
            f"{prefix}/steps": float(self.steps),
            f"{prefix}/seconds": self.seconds,
            f"{prefix}/peak_memory_mb": self.peak_memory_bytes / 1e6,
        }


def plan_stage(
    model: ModelConfig, config: TrainConfig, row_length_tokens: int, held_before_bytes: int = HELD_BEFORE_BYTES
) -> StagePlan:
    """The cost of a training stage, from a probe of each of its phases.

    Each phase takes its share of the steps; memory is that of the phase or change that needs most, for each rank. Ranks
    with a GPU each divide the time, as if sums cost nothing; on a CPU they share its threads and save no time.

    model: the one at the end of the stage.
    held_before_bytes: memory that the process holds before the stage.
    """
    parallel_ranks = config.num_ranks if best_device().type == "cuda" else 1
    steps = config.num_steps(row_length_tokens)
    stage_phases = phases(model, config.expert_changes, steps)
    seconds, needed_bytes = 0.0, []
    for phase in stage_phases:
        if phase.num_steps:
            slots = phase.num_steps * config.batch_rows * row_length_tokens
            phase_config = replace(config, num_tokens=slots)
            seconds += seconds_per_token(phase.model, phase_config, row_length_tokens) * slots / parallel_ranks
            activations = activation_bytes(phase.model, config, row_length_tokens)
            needed_bytes.append(phase.model.total_parameters * BYTES_PER_PARAMETER + activations)
    needed_bytes += [
        (before.model.total_parameters + after.model.total_parameters) * BYTES_PER_CHECKPOINTED_PARAMETER
        for before, after in pairwise(stage_phases)
    ]
    libraries = 0 if best_device().type == "cuda" else FIRST_STEP_BYTES
    return StagePlan(steps, seconds, held_before_bytes + libraries + max(needed_bytes))


def night_slots(
    model: ModelConfig, config: PretrainConfig, row_length_tokens: int, warm: bool,
    held_before_bytes: int = HELD_BEFORE_BYTES,
) -> int:  # fmt: skip
    """Token slots of a night that goes on: what the recipe says, or what its minutes come to on this machine.

    warm: with the optimizer's moments, at the peak rate from the first step.
    """
    if config.night_minutes is None:
        return config.night_tokens or config.num_tokens
    per_step = config.batch_rows * row_length_tokens
    plan = plan_stage(model, config.going_on(1_000 * per_step, warm), row_length_tokens, held_before_bytes)
    return per_step * max(1, round(config.night_minutes * 60 * plan.steps / plan.seconds))
