"""What is asked of a trial, and what it will cost. Knows no Prefect, which is imported when its server is chosen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

from model.config.checks import STRICT, Range, field_problems, require
from model.config.training import TrainConfig
from tasks.errors import NightStopped
from tasks.home.digests import digest_of
from tasks.pages.text import plural
from tasks.planning.machine import best_device
from tasks.planning.memory import BYTES_PER_CHECKPOINTED_PARAMETER
from tasks.planning.plan import duration
from tasks.planning.probe import seconds_per_token
from tasks.recipes.overrides import as_argument
from tasks.recipes.pretrain_config import PretrainConfig
from tasks.recipes.recipe import Recipe

SWEPT = ("pretrain.", "model.")
FIXED = ("pretrain.eval_rows", "pretrain.num_tokens", "model.vocab_size", "pretrain.seed")
"""They would change what is compared; seeds have a number of their own."""
OF_LATER_NIGHTS = tuple(sorted({f"pretrain.{f.name}" for f in fields(PretrainConfig)} - {
    f"pretrain.{f.name}" for f in fields(TrainConfig)
}))  # fmt: skip
"""They say how a night goes on from an earlier one; a training of a sweep begins from scratch."""
FEWEST_RIVALS = 2
"""Settings of the last rung: the best of one alone is not known to be better than anything."""


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
    """Which settings are tried, and how much each is worth.

    With several rungs it is successive halving (arXiv 1502.07943): every setting is trained shortly, the best of them
    again and longer, and so on; each training is a whole one, with the schedule of its own length.
    """

    __pydantic_config__ = STRICT

    over: dict[str, list[Any]]
    """Values of each setting, by its path in the recipe."""
    alone: bool = False
    """Try each value by itself, beside the recipe as it is, instead of all combinations."""
    share: Annotated[float, Range(0, 1, above=True)] = 0.1
    """Share of pretraining's steps that a setting gets in the last rung."""
    equal: Literal["tokens", "seconds"] = "tokens"
    """What settings get alike. With `seconds`, one that is slower by a probe than the recipe gets fewer tokens."""
    rungs: Annotated[int, Range(1, 10)] = 1
    keep_share: Annotated[float, Range(0, 1, above=True, below=True)] = 1 / 3
    """Share of its settings that a rung hands on, the best; it gets this share of the next rung's tokens."""
    seeds: Annotated[int, Range(1, 1_000)] = 1
    """Trainings of each setting in the last rung, which differ by the seed alone; earlier rungs have one."""

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
            if key in OF_LATER_NIGHTS:
                problems.append(
                    f"over {key}: it says how a night goes on from an earlier one, and each training of a sweep begins "
                    f"from scratch; not swept are {', '.join(OF_LATER_NIGHTS)}"
                )
            if len({digest_of(value) for value in values}) < len(values):
                problems.append(f"over {key}: a value is there twice among {values}")
        require(problems, "sweep")

    @property
    def last_rung(self) -> int:
        """Rungs are counted from 0."""
        return self.rungs - 1

    def share_of(self, rung: int) -> float:
        """Share of pretraining's steps that a setting gets in a rung."""
        return self.share * self.keep_share ** (self.last_rung - rung)

    def percent_of(self, rung: int) -> str:
        return f"{100 * self.share_of(rung):.3g}%"

    def seeds_of(self, rung: int) -> int:
        return self.seeds if rung == self.last_rung else 1

    def kept(self, num_settings: int, rung: int) -> int:
        """How many of all settings a rung trains; at least FEWEST_RIVALS, if there are so many."""
        return max(min(FEWEST_RIVALS, num_settings), round(num_settings * self.keep_share**rung))

    def require_choice(self, num_settings: int) -> None:
        """Raise NightStopped if a rung would have nothing to choose."""
        if self.rungs > 1 and self.kept(num_settings, self.last_rung - 1) <= FEWEST_RIVALS:
            most = next(r for r in range(self.rungs) if self.kept(num_settings, r) <= FEWEST_RIVALS) + 1
            raise NightStopped(
                f"sweep: {plural(self.rungs, 'rung')} of {plural(num_settings, 'setting')}: in rung {most} no more "
                f"than {FEWEST_RIVALS} are left, and later ones would choose none; set --rungs to {most}, or give more "
                "values"
            )


Setting = Mapping[str, Any]
"""What is changed of the recipe, by the path of each; empty for the recipe as it is."""


@dataclass(frozen=True)
class Variant:
    """One training of a sweep."""

    values: Setting
    seed: int
    rung: int
    recipe: Recipe

    @property
    def pairs(self) -> tuple[str, ...]:
        """The setting without the seed, as `--set` takes it."""
        return tuple(f"{key}={as_argument(value)}" for key, value in self.values.items())

    @property
    def key(self) -> str:
        """What tells it from others of the sweep."""
        return digest_of(self.recipe)


def settings_of(recipe: Recipe, sweep: Sweep) -> list[Setting]:
    """Every combination; or the recipe as it is and each value by itself, but for those that it has already.

    Raises NightStopped for one that is no valid recipe, or if there are too few for the rungs, before any is trained.
    """
    if sweep.alone:
        single = [{key: value} for key, values in sweep.over.items() for value in values]
        found: list[Setting] = [{}, *(setting for setting in single if changed(recipe, setting) != recipe)]
    else:
        found = [dict(zip(sweep.over, values, strict=True)) for values in itertools.product(*sweep.over.values())]
    for setting in found:
        changed(recipe, setting)
    sweep.require_choice(len(found))
    return found


def changed(recipe: Recipe, setting: Setting) -> Recipe:
    """The recipe with a setting. Raises NightStopped if that is no valid one."""
    return recipe.with_overrides(dict(setting))


def variants(
    recipe: Recipe,
    sweep: Sweep,
    settings: Sequence[Setting],
    rung: int = 0,
    pace: Callable[[Recipe], float] | None = None,
) -> list[Variant]:
    """The trainings of a rung: each of the settings with each seed.

    pace: seconds per token of a recipe, for a sweep of equal seconds.
    """
    found = []
    for setting in settings:
        whole = replace(changed(recipe, setting), twin=False)
        share = sweep.share_of(rung)
        if pace and sweep.equal == "seconds":
            share *= pace(recipe) / pace(whole)
        tokens = max(1, round(whole.pretrain.num_tokens * share))
        for seed in range(recipe.pretrain.seed, recipe.pretrain.seed + sweep.seeds_of(rung)):
            short = replace(whole.pretrain, num_tokens=tokens, seed=seed, start="scratch")
            found.append(Variant(setting, seed, rung, replace(whole, pretrain=short)))
    return found


@dataclass(frozen=True)
class Pace:
    """Seconds per token of recipes, each probed once for the same shapes and optimizer."""

    known: dict[str, float]
    """By a digest of what the pace depends on; filled by asking."""

    def __call__(self, recipe: Recipe) -> float:
        model, config, length = recipe.model, recipe.pretrain, recipe.data.sequence_length_tokens
        moved = config.optim.name, config.optim.muon_matrices
        shape = digest_of((model, config.micro_batch_rows, config.batch_rows, config.precision, *moved, length))
        if shape not in self.known:
            self.known[shape] = seconds_per_token(model, config, length)
        return self.known[shape]


def sweep_cost(recipe: Recipe, sweep: Sweep) -> str:
    """Trainings, time and disk of a sweep. Which settings later rungs train is not known: the dearest are counted."""
    settings, length, pace = settings_of(recipe, sweep), recipe.data.sequence_length_tokens, Pace({})
    seconds, disk, lines = 0.0, 0, []
    for rung in range(sweep.rungs):
        trainings = variants(recipe, sweep, settings, rung, pace)
        steps = [v.recipe.pretrain.num_steps(length) for v in trainings]
        costs = [
            pace(v.recipe) * count * v.recipe.pretrain.batch_rows * length
            for v, count in zip(trainings, steps, strict=True)
        ]
        num_settings, seeds = sweep.kept(len(settings), rung), sweep.seeds_of(rung)
        seconds += sum(sorted(costs)[-num_settings * seeds :])
        disk += num_settings * seeds * max(v.recipe.model.total_parameters for v in trainings)
        fewest = f"{min(steps):,} to " if min(steps) < max(steps) else ""
        each = f"{fewest}{plural(max(steps), 'step')}, {sweep.percent_of(rung)} of pretraining"
        trained = plural(num_settings * seeds, "training")
        lines.append(f"{plural(num_settings, 'setting')} with {plural(seeds, 'seed')} each, {trained} of {each}")
    heads = ["sweep"] if sweep.rungs == 1 else [f"rung {rung + 1}" for rung in range(sweep.rungs)]
    most = " at the most" if sweep.rungs > 1 else ""
    return "\n".join(
        [
            *(f"{head:<10} {line}" for head, line in zip(heads, lines, strict=True)),
            f"time       {duration(seconds)} of training{most} on this machine ({best_device().type}), nothing for "
            "what was trained before; data that is not prepared yet and validation on top",
            f"disk       about {disk * BYTES_PER_CHECKPOINTED_PARAMETER / 2**30:.2f} GiB for checkpoints{most}",
        ]
    )
