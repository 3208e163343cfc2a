"""Each field of each configuration has a range: what cannot be is refused by the field's name, wherever it is given."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from pydantic import TypeAdapter, ValidationError

from model.config.checks import Range
from model.config.sampling import Sampling
from model.config.training import ExpertChange
from schemas.filters import FilterConfig
from tasks.recipes.recipe import Recipe
from tasks.recipes.stage_configs import SourceConfig
from tasks.trials.plan import RangeTest, Sweep

REQUIRED: dict[type, dict[str, Any]] = {
    SourceConfig: {"name": "books", "kind": "pretrain", "location": "books.jsonl"},
    ExpertChange: {"kind": "grow", "at_share": 0.5, "num_experts_before": 2},
    Sweep: {"over": {"pretrain.optim.peak_lr": [0.001]}},
}
MAY_BE_0 = {
    "ModelConfig.num_shared_experts", "ModelConfig.router_aux_loss_coef", "ModelConfig.router_z_loss_coef",
    "OptimConfig.warmup_share", "OptimConfig.stable_share", "OptimConfig.final_lr_share", "OptimConfig.weight_decay",
    "OptimConfig.router_weight_decay", "OptimConfig.embedding_weight_decay", "OptimConfig.embedding_lr_factor",
    "OptimConfig.head_lr_factor", "OptimConfig.router_lr_factor", "ModelConfig.residual_initializer_share",
    "OptimConfig.beta1", "OptimConfig.beta2", "OptimConfig.muon_momentum", "TrainConfig.router_bias_rate",
    "TrainConfig.router_bias_fade_share", "TrainConfig.seed", "Sampling.temperature", "Sampling.seed",
    "ValidateConfig.max_bad_share", "ValidateConfig.max_bad_share_per_file", "ValidateConfig.settle_seconds",
    "SplitConfig.shuffle_seed", "EvaluateConfig.temperature", "PromoteConfig.min_gain_bpb", "PromoteConfig.seed",
    "PromoteConfig.max_pretrain_regression_share", "PromoteConfig.max_more_dead_experts",
    "PromoteConfig.max_repetition_rise", "PromoteConfig.max_self_ending_fall", "PromoteConfig.max_contaminated_share",
    "EvaluateConfig.audit_share",
    "FilterConfig.max_repeated_ngram_share", "FilterConfig.max_repeated_line_share", "FilterConfig.max_symbol_share",
    "FilterConfig.max_gibberish_score", "InspectConfig.warn_lost_answers_share", "AlarmConfig.disk_days",
    "AlarmConfig.repeat_days",
    "PretrainConfig.router_bias_rate", "PretrainConfig.router_bias_fade_share", "PretrainConfig.seed",
    "PretrainConfig.replay_share",
    "SftConfig.router_bias_rate", "SftConfig.router_bias_fade_share", "SftConfig.seed", "SftConfig.replay_share",
    *(f"PretrainOptimConfig.{name}" for name in (
        "warmup_share", "stable_share", "final_lr_share", "weight_decay", "router_weight_decay",
        "embedding_weight_decay", "embedding_lr_factor", "head_lr_factor", "router_lr_factor",
        "beta1", "beta2", "muon_momentum",
    )),
    "RetentionConfig.unfinished_days", "RetentionConfig.prefect_days",
    "EvaluateConfig.held_out_prompts", "EvaluateConfig.choices", "EvaluateConfig.seed",
}  # fmt: skip
WRONG: list[object] = [-1, math.nan, math.inf, -math.inf, 10**30, 1e30, -1e30, "a word", [1], {"a": 1}]


def classes(of: Any) -> Iterator[type]:
    """The dataclasses that an annotation is made of, those of their fields included."""
    for argument in get_args(of):
        yield from classes(argument)
    if dataclasses.is_dataclass(of) and isinstance(of, type) and of is not Range:
        yield of
        for hint in get_type_hints(of, include_extras=True).values():
            yield from classes(hint)


CLASSES = list(dict.fromkeys(owner for top in (Recipe, Sampling, RangeTest, Sweep) for owner in classes(top)))


def fields_of(*types: object) -> list[Any]:
    """Fields that take one of some types, or a choice."""

    def takes(hint: Any) -> bool:
        return hint in types or get_origin(hint) in types or any(takes(argument) for argument in get_args(hint))

    hints = ((owner, name, hint) for owner in CLASSES for name, hint in get_type_hints(owner).items())
    return [
        pytest.param(owner, name, id=f"{owner.__name__}.{name}")
        for owner, name, hint in hints
        if get_origin(hint) not in (tuple, dict) and takes(hint)
    ]


adapter_of = cache(TypeAdapter)


def built(owner: type, name: str, value: object) -> object:
    return adapter_of(owner).validate_python(REQUIRED.get(owner, {}) | {name: value})


def test_all_configurations_are_looked_at() -> None:
    assert {FilterConfig, ExpertChange, SourceConfig} < set(CLASSES)
    assert len(CLASSES) >= 16
    assert len(fields_of(int, float)) >= 60


@pytest.mark.parametrize(("owner", "name"), fields_of(int, float))
def test_a_number_that_cannot_be_is_refused(owner: type, name: str) -> None:
    for value in WRONG:
        with pytest.raises(ValidationError, match=name):
            built(owner, name, value)
    if f"{owner.__name__}.{name}" in MAY_BE_0:
        built(owner, name, 0)
    else:
        with pytest.raises(ValidationError, match=name):
            built(owner, name, 0)


@pytest.mark.parametrize(("owner", "name"), fields_of(int, float))
def test_a_number_is_checked_without_pydantic_too(owner: type, name: str) -> None:
    for value in (-1, math.nan, math.inf, 10**30, "a word"):
        with pytest.raises((ValueError, TypeError)) as refused:
            owner(**REQUIRED.get(owner, {}) | {name: value})
        assert name in str(refused.value) or isinstance(refused.value, TypeError)


@pytest.mark.parametrize(("owner", "name"), fields_of(Literal, bool))
def test_a_choice_that_is_none_is_refused(owner: type, name: str) -> None:
    for value in ("foo", 7, -1, [True]):
        with pytest.raises(ValidationError, match=name):
            built(owner, name, value)
