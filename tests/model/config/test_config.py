from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config.network import ModelConfig
from model.config.optim import OptimConfig
from model.config.training import ExpertChange, TrainConfig
from model.network.transformer import Transformer
from tasks.recipes.stage_configs import DataConfig
from tests.model.tiny import tiny_config

REFUSED: list[tuple[type, dict[str, Any], str]] = [
    (ModelConfig, {"num_attention_heads": 5, "num_key_value_heads": 2}, r"num_attention_heads \(5\).*heads \(2\)"),
    (ModelConfig, {"num_experts_per_tok": 1, "num_experts": 6}, r"num_experts_per_tok \(1\).*never learn.*take 2"),
    (ModelConfig, {"num_experts": 6, "num_expert_groups": 4}, r"num_experts \(6\).*num_expert_groups \(4\)"),
    (ModelConfig, {"num_expert_groups": 2, "num_groups_per_tok": 3}, r"num_groups_per_tok \(3\).*_groups \(2\)"),
    (ModelConfig, {"num_expert_groups": 4, "num_groups_per_tok": 1}, r"num_groups_per_tok \(1\).*_tok \(2\)"),
    (ModelConfig, {"num_experts_per_tok": 7, "num_experts": 6}, r"num_experts_per_tok \(7\).*num_experts \(6\)"),
    (ModelConfig, {"head_dim": 15}, r"head_dim \(15\)"),
    (ModelConfig, {"hidden_size": 20, "moe_intermediate_size": 24}, r"hidden_size \(20\).*_size \(24\).*of 8"),
    (ModelConfig, {"hidden_size": 32, "moe_intermediate_size": 25}, r"hidden_size \(32\).*_size \(25\).*of 8"),
    (ExpertChange, {"kind": "upcycle", "at_share": 0.5, "num_experts_before": 4}, r"before \(4\) has no place"),
    (ExpertChange, {"kind": "grow", "at_share": 0.5}, r"num_experts_before \(None\) must be a number with grow"),
    (TrainConfig, {"batch_rows": 6, "micro_batch_rows": 4}, r"batch_rows \(6\).*micro_batch_rows \(4\)"),
    (TrainConfig, {"batch_rows": 8, "micro_batch_rows": 2, "num_ranks": 3}, r"batch_rows \(8\).*num_ranks \(3\): of 6"),
]
ALLOWED: list[tuple[type, dict[str, Any]]] = [
    (ModelConfig, {"num_experts_per_tok": 6, "num_experts": 6, "router_aux_loss_coef": 0.0, "router_z_loss_coef": 0.0}),
    (ModelConfig, {"vocab_size": 300}),
    (ModelConfig, {"num_experts_per_tok": 1, "norm_topk_prob": False}),
    (ModelConfig, {"num_experts_per_tok": 1, "minimind_compatible": True}),
    (ModelConfig, {"num_experts_per_tok": 1, "dense": True}),
    (ModelConfig, {"vocab_size": 65_536}),
    (DataConfig, {"sequence_length_tokens": 16}),
    (DataConfig, {"sequence_length_tokens": 32_768}),
    (OptimConfig, {"warmup_share": 0.0, "final_lr_share": 1.0, "beta1": 0.0, "beta2": 0.0}),
    (ExpertChange, {"kind": "upcycle", "at_share": 1.0}),
    (ExpertChange, {"kind": "prune", "at_share": 0.001, "num_experts_before": 1}),
    (TrainConfig, {"batch_rows": 12, "micro_batch_rows": 2, "num_ranks": 3}),
    (TrainConfig, {"num_tokens": 1, "batch_rows": 1, "micro_batch_rows": 1, "keep_checkpoints": 1}),
]


def name_of(case: object) -> str:
    if isinstance(case, dict):
        return ",".join(f"{name}={value}" for name, value in case.items())
    return case.__name__ if isinstance(case, type) else ""


@pytest.mark.parametrize(("config", "values", "message"), REFUSED, ids=name_of)
def test_bad_values_are_refused_with_their_numbers(config: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{config.__name__}: .*{message}"):
        config(**values)


@pytest.mark.parametrize(("config", "values"), ALLOWED, ids=name_of)
def test_values_at_the_limits_are_allowed(config: type, values: dict[str, Any]) -> None:
    built = config(**values)
    assert {name: getattr(built, name) for name in values} == values


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(ValueError, match=re.compile("peak_lr.*; .*clip_norm")):
        OptimConfig(peak_lr=-1, clip_norm=-1)


@pytest.mark.parametrize(
    "config", [ModelConfig(), DataConfig(), OptimConfig(), TrainConfig()], ids=lambda c: type(c).__name__
)
def test_configurations_do_not_change(config: object) -> None:
    for name, value in vars(config).items():
        with pytest.raises(FrozenInstanceError):
            setattr(config, name, value)


@settings(max_examples=10)
@given(
    layers=st.integers(1, 2),
    key_value_heads=st.integers(1, 2),
    queries_per_key=st.integers(1, 2),
    experts=st.integers(3, 5),
    hidden_size=st.sampled_from([16, 32]),
    width=st.sampled_from([8, 24]),
)
def test_total_parameters_are_those_of_the_model(
    layers: int, key_value_heads: int, queries_per_key: int, experts: int, hidden_size: int, width: int
) -> None:
    config = tiny_config(
        num_hidden_layers=layers,
        num_key_value_heads=key_value_heads,
        num_attention_heads=key_value_heads * queries_per_key,
        num_experts=experts,
        hidden_size=hidden_size,
        moe_intermediate_size=width,
    )
    model = Transformer(config)
    assert config.total_parameters == sum(parameter.numel() for parameter in model.parameters())
    idle_experts = [block.mlp.experts.down_proj[2:] for block in model.layers]
    idle_experts += [block.mlp.experts.gate_up_proj[2:] for block in model.layers]
    assert config.active_parameters == config.total_parameters - sum(weights.numel() for weights in idle_experts)
    assert config.active_parameters < config.total_parameters


def test_every_parameter_is_active_when_every_expert_is_chosen() -> None:
    config = tiny_config(num_experts=3, num_experts_per_tok=3)
    assert config.active_parameters == config.total_parameters


def test_training_flops_of_a_hand_counted_model() -> None:
    config = ModelConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=2,
        num_experts=2, num_experts_per_tok=2, moe_intermediate_size=8,
    )  # fmt: skip
    attention, experts, router, norms, table = 4 * 8 * 2, 2 * 3 * 8 * 8, 2 * 8, 8 + 8 + 2 + 2 + 8, 300 * 8
    weights = attention + experts + router + norms + table
    causal_scores_and_mix = 3 * (2 * 2 * 2 * 100) / 2
    assert config.train_flops_per_token(100) == 6 * weights + causal_scores_and_mix


@pytest.mark.parametrize(("num_tokens", "steps"), [(1, 1), (63, 1), (640, 10), (670, 10), (680, 11)])
def test_steps_cover_the_tokens(num_tokens: int, steps: int) -> None:
    config = TrainConfig(num_tokens=num_tokens, batch_rows=4, micro_batch_rows=2)
    assert config.num_steps(sequence_length_tokens=16) == steps
