"""What is asked of a trial, and what it will cost. Knows no Prefect, which is imported when its server is chosen."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from model.config.checks import STRICT, Range, field_problems, require
from tasks.home.digests import digest_of
from tasks.pages.text import plural
from tasks.planning.machine import best_device
from tasks.planning.memory import BYTES_PER_CHECKPOINTED_PARAMETER
from tasks.planning.plan import duration
from tasks.planning.probe import seconds_per_token
from tasks.recipes.overrides import as_argument
from tasks.recipes.recipe import Recipe

SWEPT = ("pretrain.", "model.")
FIXED = ("pretrain.eval_rows", "model.vocab_size", "pretrain.seed")
"""They would change what is compared; seeds have a number of their own."""


@dataclass(frozen=True, kw_only=True)
class RangeTest:
    """Which rates are tried, in how many steps."""

    __pydantic_config__ = STRICT

    lr_min: Annotated[float, Range(0, 1e6, above=True)] = 1e-6
    lr_max: Annotated[float, Range(0, 1e6, above=True)] = 1.0
    num_steps: Annotated[int, Range(10, 10**6)] = 100
    """Fewer than ten show no slope."""

    def __post_init__(self) -> None:
        problems = field_problems(self)
        if not problems and self.lr_min >= self.lr_max:
            problems.append(f"lr_min ({self.lr_min}) must be below lr_max ({self.lr_max})")
        require(problems, "range test")


def range_test_cost(recipe: Recipe, test: RangeTest) -> str:
    """What a range test takes at the most, from a probe of a few seconds."""
    length = recipe.data.sequence_length_tokens
    slots = recipe.pretrain.batch_rows * length
    seconds = seconds_per_token(recipe.model, recipe.pretrain, length) * slots * test.num_steps
    return "\n".join(
        [
            f"range test {plural(test.num_steps, 'step')} of {slots:,} tokens, each at a higher rate from "
            f"{test.lr_min:g} to {test.lr_max:g}",
            f"time       {duration(seconds)} at the most on this machine ({best_device().type}), less if the loss "
            "blows up; data that is not prepared yet on top",
        ]
    )


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Which settings are tried, and how much each is worth."""

    __pydantic_config__ = STRICT

    over: dict[str, list[Any]]
    """Values of each setting, by its path in the recipe; all combinations are trained."""
    share: Annotated[float, Range(0, 1, above=True)] = 0.1
    """Share of pretraining's steps that each combination gets; its schedule is that of so short a training."""
    seeds: Annotated[int, Range(1, 1_000)] = 1
    """Trainings of each combination, which differ by the seed alone."""

    def __post_init__(self) -> None:
        problems = field_problems(self)
        if not self.over or not all(self.over.values()):
            problems.append("over names no values; give some: --over pretrain.optim.peak_lr=1e-3,2e-3")
        for key, values in self.over.items():
            if not key.startswith(SWEPT) or key in FIXED:
                problems.append(
                    f"over {key}: all trainings read the same tokens and are scored on the same rows, so only settings "
                    f"of pretrain and model are swept, and not {', '.join(FIXED)}"
                )
            if len({digest_of(value) for value in values}) < len(values):
                problems.append(f"over {key}: a value is there twice among {values}")
        require(problems, "sweep")


@dataclass(frozen=True)
class Variant:
    """One training of a sweep."""

    values: Mapping[str, Any]
    """What it changes of the recipe."""
    seed: int
    recipe: Recipe

    @property
    def pairs(self) -> tuple[str, ...]:
        """The setting without the seed, as `--set` takes it."""
        return tuple(f"{key}={as_argument(value)}" for key, value in self.values.items())

    @property
    def key(self) -> str:
        """What tells it from others of the sweep."""
        return digest_of(self.recipe)


def variants(recipe: Recipe, sweep: Sweep) -> list[Variant]:
    """Every combination with every seed. Raises NightStopped for one that is no valid recipe, before any is trained."""
    base = replace(recipe, twin=False)
    found = []
    for values in itertools.product(*sweep.over.values()):
        changed = dict(zip(sweep.over, values, strict=True))
        whole = base.with_overrides(changed)
        tokens = max(1, round(whole.pretrain.num_tokens * sweep.share))
        for seed in range(recipe.pretrain.seed, recipe.pretrain.seed + sweep.seeds):
            short = replace(whole.pretrain, num_tokens=tokens, seed=seed, start="scratch")
            found.append(Variant(changed, seed, replace(whole, pretrain=short)))
    return found


def sweep_cost(recipe: Recipe, sweep: Sweep) -> str:
    """Trainings, time and disk of a sweep. Shapes of their own are probed for a few seconds each."""
    trainings, length = variants(recipe, sweep), recipe.data.sequence_length_tokens
    probed: dict[object, float] = {}
    seconds, disk, steps = 0.0, 0, set()
    for variant in trainings:
        model, config = variant.recipe.model, variant.recipe.pretrain
        shape = (model, config.micro_batch_rows, config.precision, config.optim.name)
        if shape not in probed:
            probed[shape] = seconds_per_token(model, config, length)
        steps.add(config.num_steps(length))
        seconds += probed[shape] * config.num_steps(length) * config.batch_rows * length
        disk += model.total_parameters * BYTES_PER_CHECKPOINTED_PARAMETER
    each = plural(min(steps), "step") if len(steps) == 1 else f"{min(steps):,} to {max(steps):,} steps"
    seeds = plural(sweep.seeds, "seed")
    return "\n".join(
        [
            f"sweep      {plural(len(trainings) // sweep.seeds, 'setting')} with {seeds} each, "
            f"{plural(len(trainings), 'training')} of {each}, {sweep.share:.0%} of pretraining",
            f"time       {duration(seconds)} of training on this machine ({best_device().type}), nothing for what was "
            "trained before; data that is not prepared yet and validation on top",
            f"disk       about {disk / 2**30:.2f} GiB for checkpoints",
        ]
    )
