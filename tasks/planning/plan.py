"""What a night is planned to cost: time, memory and disk of its training stages, before any of them starts."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.config.network import ModelConfig
from model.config.phases import Phase, phases
from model.config.training import TrainConfig
from model.training.trainer import train_step
from tasks.home.records import stage_name
from tasks.home.stage_table import TRAINING_STAGES
from tasks.home.trunk import FROM_SCRATCH, Start
from tasks.pages.text import plural
from tasks.planning.cost import StagePlan, night_slots, plan_stage
from tasks.planning.machine import best_device
from tasks.planning.memory import BYTES_PER_CHECKPOINTED_PARAMETER
from tasks.planning.probe import PROBE_SECONDS, probe_state
from tasks.recipes.pretrain_config import PretrainConfig
from tasks.recipes.recipe import Recipe
from tasks.recipes.sft_config import SftConfig

log = logging.getLogger("nightschool")
LEAST_TURNS = 3
"""In which two models are compared."""


@dataclass(frozen=True)
class PlannedTraining:
    """A training stage of a night that has not begun."""

    name: str
    """That of the branch included."""
    model: ModelConfig
    config: TrainConfig

    @property
    def keeps_trunk(self) -> bool:
        return isinstance(self.config, PretrainConfig) and self.config.start == "trunk"

    def phases(self, row_length_tokens: int) -> list[Phase]:
        """Its phases in order; one if the experts never change."""
        return phases(self.model, self.config.expert_changes, self.config.num_steps(row_length_tokens))


def training_stages(recipe: Recipe) -> list[PlannedTraining]:
    """The training stages of a night in order, those of the dense twin last if the recipe has one."""
    branches = [("", recipe), *([("twin", recipe.dense_twin())] if recipe.twin else [])]
    return [
        PlannedTraining(stage_name(entry.name, branch), branch_recipe.model, getattr(branch_recipe, entry.name))
        for branch, branch_recipe in branches
        for entry in TRAINING_STAGES
    ]


def disk_bytes(recipe: Recipe) -> int:
    """Checkpoints of all training stages and the trunk, each as large as the stage's largest phase needs, and two
    exports in fp32."""
    row_length_tokens, checkpointed = recipe.data.sequence_length_tokens, 0
    for stage in training_stages(recipe):
        largest = max(phase.model.total_parameters for phase in stage.phases(row_length_tokens))
        checkpointed += (stage.config.keep_checkpoints + stage.keeps_trunk) * largest
    return BYTES_PER_CHECKPOINTED_PARAMETER * checkpointed + 2 * 4 * recipe.model.total_parameters


def time_shares(
    model: ModelConfig, other: ModelConfig, config: TrainConfig, row_length_tokens: int
) -> tuple[float, float]:
    """Time of a training token of `other` as a share of `model`'s: the lower and the upper quartile of what was seen.

    Both make their steps in turns, so that whatever else the machine does slows both. There are three turns at the
    least, and as many as fit into a few seconds.
    """
    own, others = (probe_state(each, config, row_length_tokens) for each in (model, other))
    shares, started = list[float](), 0.0
    for turn in itertools.count():
        seconds = [train_step(*probed, num_steps=1_000).seconds for probed in (own, others)]
        if turn == 0:  # the first steps of both also make what later ones find made
            started = time.perf_counter()
            continue
        shares.append(seconds[1] / seconds[0])
        if len(shares) >= LEAST_TURNS and time.perf_counter() - started > PROBE_SECONDS:
            break
    low, high = np.quantile(shares, [0.25, 0.75])
    return float(low), float(high)


def alternatives(model: ModelConfig) -> Iterator[tuple[str, ModelConfig]]:
    """Models with about as many active parameters, for comparison, each with what it is."""
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


def experts_of(model: ModelConfig) -> str:
    """How many experts a layer has and a token passes, for people."""
    if model.dense:
        return "dense"
    shared = f" and {model.num_shared_experts} shared" if model.num_shared_experts else ""
    return f"{model.num_experts} experts of which {model.num_experts_per_tok} a token{shared}"


def going_on(stage: PlannedTraining, start: Start, row_length_tokens: int) -> PlannedTraining:
    """How a stage trains in a night that begins with `start`."""
    if start.how == "scratch" or not isinstance(stage.config, PretrainConfig):
        return stage
    warm = start.how == "trunk"
    slots = night_slots(stage.model, stage.config, row_length_tokens, warm)
    return replace(stage, config=stage.config.going_on(slots, warm))


def rows_read(config: TrainConfig) -> str:
    """How many of fine-tuning's rows are text of pretraining, for people; nothing where none are."""
    share = config.replay_share if isinstance(config, SftConfig) else 0.0
    return f", {share:.0%} of the rows text of pretraining" if share else ""


def plan_text(recipe: Recipe, start: Start = FROM_SCRATCH) -> str:
    """Parameters, steps, time, memory and disk of a recipe, and the cost of similar models; for people.

    Times come from a probe of a few seconds each. start: what pretraining would begin with.
    """
    model, row_length_tokens = recipe.model, recipe.data.sequence_length_tokens
    lines = [
        ("model", f"{model.total_parameters:,} parameters, {model.active_parameters:,} active, {experts_of(model)}"),
        ("FLOPs", f"{model.train_flops_per_token(row_length_tokens):.3g} a token"),
    ]
    if recipe.twin:
        twin = recipe.dense_twin().model
        excess = model.active_parameters / twin.active_parameters - 1
        lines.append(("twin", f"{twin.total_parameters:,} parameters, dense; the model has {excess:+.2%} active ones"))
    stages, plans = training_stages(recipe), list[StagePlan]()
    stages = [going_on(stage, start, row_length_tokens) for stage in stages]
    lines.append(("start", f"pretraining {start.reason}; tonight {stages[0].config.num_tokens:,} token slots"))
    for stage in stages:
        log.info("measuring   a few steps of %s on this machine", stage.name)
        plan = plan_stage(stage.model, stage.config, row_length_tokens)
        tokens_per_step = stage.config.batch_rows * row_length_tokens
        rows = rows_read(stage.config)
        lines.append(
            (stage.name, f"{plural(plan.steps, 'step')} of {tokens_per_step:,} tokens{rows}, {duration(plan.seconds)}")
        )
        lines += [("change", str(phase)) for phase in stage.phases(row_length_tokens) if phase.change]
        plans.append(plan)
    log.info("measuring   similar models, step by step in turns; a few seconds each")
    lines += [*resource_lines(recipe, stages, plans), *alternative_lines(recipe, stages[0].config)]
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in lines)


def resource_lines(
    recipe: Recipe, stages: Sequence[PlannedTraining], plans: Sequence[StagePlan]
) -> list[tuple[str, str]]:
    """Time, memory and disk of all training stages, by label."""
    seconds = sum(plan.seconds for plan in plans)
    memory = max(plan.peak_memory_bytes for plan in plans)
    ranks = max(stage.config.num_ranks for stage in stages)
    each = f", on each of {ranks} ranks" if ranks > 1 else ""
    device = best_device().type
    return [
        ("time", f"{duration(seconds)} of training on this machine ({device}), data and evaluation on top"),
        ("memory", f"about {memory / 2**30:.1f} GiB at the peak of training{each}"),
        ("disk", f"about {disk_bytes(recipe) / 2**30:.2f} GiB for checkpoints and exports"),
    ]


def alternative_lines(recipe: Recipe, config: TrainConfig) -> Iterator[tuple[str, str]]:
    """Time per token of similar models when trained as `config` says, by label; a twin that the recipe trains is left
    out, as it has lines of its own."""
    for name, other in alternatives(recipe.model):
        if not (recipe.twin and other.dense):
            low, high = time_shares(recipe.model, other, config, recipe.data.sequence_length_tokens)
            shares = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
            yield "instead", f"{name}: {other.total_parameters:,} parameters, {shares} of the time a token"


def duration(seconds: float) -> str:
    """Seconds rounded for people, in the unit that suits."""
    if seconds < 120:
        return f"about {seconds:.0f} s"
    if seconds < 7_200:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3_600:.1f} h"
