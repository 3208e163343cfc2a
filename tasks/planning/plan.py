"""What a night will cost, said before it starts and compared with what it did cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from model.config.network import ModelConfig
from model.config.phases import Phase, phases
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
from tasks.recipes.recipe import Recipe


@dataclass(frozen=True)
class StagePlan:
    """One training stage before it starts, or after it ended."""

    steps: int
    seconds: float
    peak_memory_bytes: int

    def as_metrics(self, prefix: str) -> dict[str, float]:
        return {
            f"{prefix}/steps": float(self.steps),
            f"{prefix}/seconds": self.seconds,
            f"{prefix}/peak_memory_mb": self.peak_memory_bytes / 1e6,
        }


def plan_stage(
    model: ModelConfig, config: TrainConfig, tokens: int, held_before_bytes: int = HELD_BEFORE_BYTES
) -> StagePlan:
    """A training stage on rows of `tokens` slots, in a process that holds so much before it.

    Each phase is probed and takes its share of the steps; memory is that of the phase or change that needs most, for
    each rank. Ranks with a GPU each divide the time, as if sums cost nothing; on CPU they divide threads and win none.
    """
    at_once = config.num_ranks if best_device().type == "cuda" else 1
    steps = config.num_steps(tokens)
    found = phases(model, config.expert_changes, steps)
    seconds, held = 0.0, []
    for phase in found:
        if phase.num_steps:
            slots = phase.num_steps * config.batch_rows * tokens
            seconds += seconds_per_token(phase.model, replace(config, num_tokens=slots), tokens) * slots / at_once
            activations = activation_bytes(phase.model, config, tokens)
            held.append(phase.model.total_parameters * BYTES_PER_PARAMETER + activations)
    held += [
        (before.model.total_parameters + after.model.total_parameters) * BYTES_PER_CHECKPOINTED_PARAMETER
        for before, after in pairwise(found)
    ]
    libraries = 0 if best_device().type == "cuda" else FIRST_STEP_BYTES
    return StagePlan(steps, seconds, held_before_bytes + libraries + max(held))


def disk_bytes(recipe: Recipe) -> int:
    """Checkpoints of all training stages, each phase's as large as the largest one's, and the export."""
    kept = recipe.pretrain.keep_checkpoints * max(phase.model.total_parameters for phase in recipe_phases(recipe))
    kept += recipe.sft.keep_checkpoints * recipe.model.total_parameters
    if recipe.twin:
        twin_kept = recipe.pretrain.keep_checkpoints + recipe.sft.keep_checkpoints
        kept += twin_kept * recipe.dense_twin().model.total_parameters
    return BYTES_PER_CHECKPOINTED_PARAMETER * kept + 2 * 4 * recipe.model.total_parameters


def recipe_phases(recipe: Recipe) -> list[Phase]:
    """The phases of a recipe's pretraining."""
    steps = recipe.pretrain.num_steps(recipe.data.sequence_length_tokens)
    return phases(recipe.model, recipe.pretrain.expert_changes, steps)


def alternatives(model: ModelConfig) -> Iterator[tuple[str, ModelConfig]]:
    """Models that cost about as much a token, for comparison."""
    if model.dense:
        return
    yield "its dense twin", replace(model, dense=True)
    if model.num_experts % 2 == 0 and model.num_experts // 2 >= model.num_experts_per_tok > 1:
        groups = model.num_expert_groups if (model.num_experts // 2) % model.num_expert_groups == 0 else 1
        kept = model.num_groups_per_tok if groups > 1 else 1
        yield (
            "half the experts",
            replace(model, num_experts=model.num_experts // 2, num_expert_groups=groups, num_groups_per_tok=kept),
        )


def trainings(recipe: Recipe) -> dict[str, tuple[ModelConfig, TrainConfig]]:
    """The training stages of a night by name."""
    stages = {"pretrain": (recipe.model, recipe.pretrain), "sft": (recipe.model, recipe.sft)}
    if recipe.twin:
        twin = recipe.dense_twin()
        stages |= {"twin-pretrain": (twin.model, twin.pretrain), "twin-sft": (twin.model, twin.sft)}
    return stages


def experts_of(model: ModelConfig) -> str:
    if model.dense:
        return "dense"
    shared = f" and {model.num_shared_experts} shared" if model.num_shared_experts else ""
    return f"{model.num_experts} experts of which {model.num_experts_per_tok} a token{shared}"


def plan_text(recipe: Recipe) -> str:
    """Parameters, steps, time, memory and disk of a recipe, and what other models would take.

    Times come from a probe of a few seconds each.
    """
    model, length = recipe.model, recipe.data.sequence_length_tokens
    lines = [
        ("model", f"{model.total_parameters:,} parameters, {model.active_parameters:,} active, {experts_of(model)}"),
        ("FLOPs", f"{model.train_flops_per_token(length):.3g} a token"),
    ]
    if recipe.twin:
        twin = recipe.dense_twin().model
        excess = model.active_parameters / twin.active_parameters - 1
        lines.append(("twin", f"{twin.total_parameters:,} parameters, dense; the model has {excess:+.2%} active ones"))
    stages = trainings(recipe)
    plans = {name: plan_stage(*stage, length) for name, stage in stages.items()}
    for name, (_, config) in stages.items():
        slots = config.batch_rows * length
        lines.append((name, f"{plans[name].steps:,} steps of {slots:,} tokens, {duration(plans[name].seconds)}"))
        if name == "pretrain":
            lines += [("change", str(phase)) for phase in recipe_phases(recipe) if phase.change]
    lines += [*needs(recipe, stages, plans), *instead(recipe)]
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in lines)


def needs(
    recipe: Recipe, stages: Mapping[str, tuple[ModelConfig, TrainConfig]], plans: Mapping[str, StagePlan]
) -> list[tuple[str, str]]:
    """Time, memory and disk of all training stages, by label."""
    total = sum(plan.seconds for plan in plans.values())
    memory = max(plan.peak_memory_bytes for plan in plans.values())
    ranks = max(config.num_ranks for _, config in stages.values())
    each = f", on each of {ranks} ranks" if ranks > 1 else ""
    return [
        ("time", f"{duration(total)} of training on this machine ({best_device().type}), data and evaluation on top"),
        ("memory", f"about {memory / 2**30:.1f} GiB at the peak of training{each}"),
        ("disk", f"about {disk_bytes(recipe) / 2**30:.2f} GiB for checkpoints and exports"),
    ]


def instead(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What other models would take, but for a twin that is trained anyway."""
    length = recipe.data.sequence_length_tokens
    ours = seconds_per_token(recipe.model, recipe.pretrain, length)
    for name, other in alternatives(recipe.model):
        if not (recipe.twin and other.dense):
            ratio = seconds_per_token(other, recipe.pretrain, length) / ours
            yield "instead", f"{name}: {other.total_parameters:,} parameters, {ratio:.2f} of the time a token"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"about {seconds:.0f} s"
    if seconds < 7_200:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3_600:.1f} h"
