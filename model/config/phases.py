"""Which configuration a model has at which step of a stage that changes its experts.

A recipe names the model that is exported; what it was before each change is derived from that, backwards. A change
belongs to the step that it is made after: a state or a checkpoint of that step has made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from model.config.checks import require
from model.config.network import ModelConfig
from model.config.training import ExpertChange


@dataclass(frozen=True)
class Phase:
    """Steps of a training stage that share one configuration."""

    model: ModelConfig
    first_step: int
    """Optimizer steps done when it begins."""
    num_steps: int
    """Optimizer steps in it; none where it begins after the last."""
    change: ExpertChange | None = None
    """What it begins with; the first one begins with nothing."""

    def __str__(self) -> str:
        if self.change is None:
            return "as created"
        before = self.change.num_experts_before or "a dense model"
        return f"{self.change.kind} from {before} to {self.model.num_experts} experts at step {self.first_step:,}"


def phases(model: ModelConfig, changes: Sequence[ExpertChange], num_steps: int) -> list[Phase]:
    """The phases of a stage of `num_steps` that ends with `model`, in order; ValueError with every problem."""
    require(phase_problems(model, changes, num_steps), "expert_changes")
    configs, _ = configs_around(model, changes)
    starts = [0, *(step_of(change, num_steps) for change in changes)]
    lengths = [end - start for start, end in pairwise([*starts, num_steps])]
    return [Phase(*phase) for phase in zip(configs, starts, lengths, (None, *changes), strict=True)]


def phase_after(stage_phases: Sequence[Phase], step: int) -> Phase:
    """The phase that has begun once `step` optimizer steps are done."""
    return [phase for phase in stage_phases if phase.first_step <= step][-1]


def phase_problems(model: ModelConfig, changes: Sequence[ExpertChange], num_steps: int) -> list[str]:
    """Why a stage of `num_steps` cannot make these changes and end with `model`; nothing if it can."""
    steps = [step_of(change, num_steps) for change in changes]
    return configs_around(model, changes)[1] + [
        f"{number} ({changes[number].kind}) falls on step {steps[number]} of {num_steps}, not after step "
        f"{steps[number - 1]} of the change before it: put them in order of at_share, a step or more apart"
        for number in range(1, len(changes))
        if steps[number] <= steps[number - 1]
    ]


def step_of(change: ExpertChange, num_steps: int) -> int:
    """The step, of `num_steps`, after which a change is made; never before the first."""
    return max(1, round(change.at_share * num_steps))


def configs_around(model: ModelConfig, changes: Sequence[ExpertChange]) -> tuple[list[ModelConfig], list[str]]:
    """Configurations before each change and at the end, and problems of the changes; an impossible one changes
    nothing."""
    configs, problems = [model], list[str]()
    for number, change in reversed(list(enumerate(changes))):
        of_change, before = change_obstacles(change, configs[0], first=number == 0), configs[0]
        if not of_change:
            try:
                before = before_change(change, configs[0])
            except ValueError as error:
                of_change.append(f"before it, {error}")
        configs.insert(0, before)
        problems = [*(f"{number} ({change.kind}): {problem}" for problem in of_change), *problems]
    return configs, problems


def before_change(change: ExpertChange, after: ModelConfig) -> ModelConfig:
    """What a model was before a change that made it `after`; ValueError where that is no model."""
    if change.num_experts_before is not None:
        return replace(after, num_experts=change.num_experts_before)
    return replace(
        after, dense=True, num_experts=1, num_experts_per_tok=1, num_shared_experts=0, num_expert_groups=1,
        num_groups_per_tok=1,
    )  # fmt: skip


def change_obstacles(change: ExpertChange, after: ModelConfig, first: bool) -> list[str]:
    """Why a change cannot make `after`, whatever was before."""
    if after.dense:
        return ["the model after it is dense and has no experts; set model.dense: false"]
    before, experts = change.num_experts_before, after.num_experts
    if before is None:
        dense = before_change(change, after)
        late = [] if first else ["must be the first change: what comes before it is dense and has no experts"]
        return late + upcycling_obstacles(dense, after)
    if change.kind == "grow":
        few = [] if before < experts else [f"num_experts_before ({before}) must be below the {experts} after it"]
        return few + growing_obstacles(after)
    return [] if before > experts else [f"num_experts_before ({before}) must be above the {experts} after it"]


def upcycling_obstacles(dense: ModelConfig, mixture: ModelConfig) -> list[str]:
    """Why a mixture of copies of the dense model's block would not compute what that does; nothing if it would."""
    if not dense.dense or mixture.dense:
        return ["upcycling goes from a dense model to a mixture of experts"]
    problems, width = [], dense.active_intermediate_size
    if mixture.moe_intermediate_size != width:
        problems.append(
            f"moe_intermediate_size ({mixture.moe_intermediate_size}) must be the width of the dense block ({width}), "
            "which each expert copies"
        )
    if not mixture.norm_topk_prob:
        problems.append("norm_topk_prob (false): only weights that sum to 1 give the dense block back; set it to true")
    if mixture.num_shared_experts:
        problems.append(
            f"num_shared_experts ({mixture.num_shared_experts}): their output would come on top of the dense block's; "
            "set it to 0"
        )
    return problems


def growing_obstacles(config: ModelConfig) -> list[str]:
    """Why a model cannot have one expert more; nothing if it can."""
    groups = config.num_expert_groups
    return [] if groups == 1 else [f"num_expert_groups ({groups}): experts in groups cannot grow by one; set it to 1"]
