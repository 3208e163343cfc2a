from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from model.config.optim import OptimConfig
from model.network.transformer import Transformer
from model.optim.groups import build_optimizer, parameter_groups, second_moment_decay, set_learning_rate
from tests.model.tiny import tiny_config
from tests.reference.adamw import PlainAdamW

GROUPS = {
    "router": {"layers.0.mlp.gate.weight"},
    "embedding": {"embed_tokens.weight"},
    "gate_up": {"layers.0.mlp.experts.gate_up_proj"},
    "attention": {f"layers.0.self_attn.{side}_proj.weight" for side in "qkvo"},
    "down": {"layers.0.mlp.experts.down_proj"},
    "head": {"lm_head.weight"},
    "vectors": {
        "norm.weight", "layers.0.input_layernorm.weight", "layers.0.post_attention_layernorm.weight",
        "layers.0.self_attn.q_norm.weight", "layers.0.self_attn.k_norm.weight",
    },
}  # fmt: skip
EVERYTHING = OptimConfig(
    peak_lr=0.02, weight_decay=0.5, router_weight_decay=0.3, embedding_weight_decay=0.2, embedding_lr_factor=0.25,
    head_lr_factor=0.5, router_lr_factor=2.0, beta1=0.8, beta2=0.9,
)  # fmt: skip
FACTORS = {"embedding": 0.25, "head": 0.5, "router": 2.0}
"""Of learning rates."""


def one_layer() -> Transformer:
    return Transformer(tiny_config(num_hidden_layers=1, tie_word_embeddings=False))


def randomise_gradients(model: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def groups_by_kind(model: Transformer, config: OptimConfig) -> dict[str, dict[str, Any]]:
    return {group["kind"]: group for group in parameter_groups(model, config)}


def test_every_parameter_is_in_the_group_of_its_kind() -> None:
    model = one_layer()
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = groups_by_kind(model, OptimConfig())
    assert {kind: {name_of[id(p)] for p in group["params"]} for kind, group in groups.items()} == GROUPS
    assert sum(len(group["params"]) for group in groups.values()) == len(name_of)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_matrices_alone_decay_by_default(name: str) -> None:
    config = OptimConfig(name=name, peak_lr=0.1, weight_decay=0.5)
    model = one_layer()
    before = copy.deepcopy(model.state_dict())
    optimizer = build_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for weight_name, parameter in model.named_parameters():
        kept = 0.95 if weight_name in GROUPS["attention"] | GROUPS["down"] | GROUPS["gate_up"] else 1.0
        torch.testing.assert_close(parameter.detach(), kept * before[weight_name], msg=weight_name)


def test_each_group_follows_adamw_with_its_own_decay_and_rate() -> None:
    model = one_layer()
    optimizer = build_optimizer(model, EVERYTHING)
    start = {name: parameter.detach().double().clone() for name, parameter in model.named_parameters()}
    decays = {
        "attention": 0.5, "down": 0.5, "gate_up": 0.5, "router": 0.3, "embedding": 0.2, "head": 0.2, "vectors": 0.0,
    }  # fmt: skip
    references = {
        kind: PlainAdamW({name: start[name] for name in names}, set(names), 0.8, 0.9, decays[kind])
        for kind, names in GROUPS.items()
    }
    generator = torch.Generator().manual_seed(0)
    for lr in (0.02, 0.02, 0.01, 0.005):
        gradients = randomise_gradients(model, generator)
        set_learning_rate(optimizer, lr)
        optimizer.step()
        for kind, names in GROUPS.items():
            factor = FACTORS.get(kind, 1.0)
            references[kind].step({name: gradients[name] for name in names}, lr * factor)
    for name, parameter in model.named_parameters():
        expected = next(plain.weights[name] for plain in references.values() if name in plain.weights)
        torch.testing.assert_close(parameter.double(), expected, atol=1e-5, rtol=1e-5, msg=name)


def test_adamw_runs_fused_from_the_peak_learning_rate() -> None:
    optimizer = build_optimizer(one_layer(), EVERYTHING)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert all(group["fused"] for group in optimizer.param_groups)
    assert {group["kind"]: group["lr"] for group in optimizer.param_groups} == {
        kind: 0.02 * FACTORS.get(kind, 1.0) for kind in GROUPS
    }


@pytest.mark.parametrize(
    ("which", "moved"),
    [("all", {"attention", "down", "gate_up"}), ("attention", {"attention"}), ("experts", {"down", "gate_up"})],
)
def test_muon_moves_the_matrices_that_it_is_told(which: str, moved: set[str]) -> None:
    model = one_layer()
    optimizer = build_optimizer(model, OptimConfig(name="muon", muon_matrices=which))
    randomise_gradients(model, torch.Generator().manual_seed(0))
    optimizer.step()
    by_muon = {id(p) for p, state in optimizer.state.items() if "momentum_buffer" in state}
    found = {name for name, p in model.named_parameters() if id(p) in by_muon}
    assert found == set().union(*(GROUPS[kind] for kind in moved))


@given(st.integers(1, 10**6), st.floats(1, 1e9))
def test_a_gradient_counts_half_after_its_half_life(tokens_per_step: int, half_life: float) -> None:
    config = OptimConfig(beta2_half_life_tokens=half_life)
    beta2 = second_moment_decay(config, tokens_per_step)
    assert 0 <= beta2 < 1
    if beta2 > 1e-300:
        assert beta2 ** (half_life / tokens_per_step) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_half_life_sets_beta2_and_nothing_else(name: str) -> None:
    config = OptimConfig(name=name, beta1=0.7, beta2=0.123, beta2_half_life_tokens=1000.0)
    optimizer = build_optimizer(one_layer(), config, tokens_per_step=500)
    assert all(group["betas"] == (0.7, pytest.approx(0.5**0.5)) for group in optimizer.param_groups)
    plain = build_optimizer(one_layer(), replace(config, beta2_half_life_tokens=None))
    assert all(group["betas"] == (0.7, 0.123) for group in plain.param_groups)


def test_a_half_life_without_tokens_per_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"beta2_half_life_tokens \(1000\.0\).*tokens_per_step \(0\).*batch_rows"):
        build_optimizer(one_layer(), OptimConfig(beta2_half_life_tokens=1000.0))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_loaded_optimizer_goes_on_with_the_same_bits(name: str) -> None:
    config = replace(EVERYTHING, name=name)
    model = one_layer()
    optimizer = build_optimizer(model, config)
    for seed in range(3):
        randomise_gradients(model, torch.Generator().manual_seed(seed))
        optimizer.step()
    twin = one_layer()
    twin.load_state_dict(model.state_dict())
    resumed = build_optimizer(twin, OptimConfig(name=name))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(3, 6):
        for network, own in ((model, optimizer), (twin, resumed)):
            randomise_gradients(network, torch.Generator().manual_seed(seed))
            own.step()
    for (weight_name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs), weight_name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight_decay": -0.5}, r"^OptimConfig: weight_decay \(-0\.5\) must be at least 0"),
        ({"router_weight_decay": -0.5}, r"router_weight_decay \(-0\.5\) must be at least 0"),
        ({"embedding_weight_decay": -0.5}, r"embedding_weight_decay \(-0\.5\) must be at least 0"),
        ({"embedding_lr_factor": -1.0}, r"embedding_lr_factor \(-1\.0\) must be at least 0"),
        ({"beta2_half_life_tokens": 0.0}, r"beta2_half_life_tokens \(0\.0\).*above 0, or null"),
        ({"muon_momentum": 1.0}, r"muon_momentum \(1\.0\) must be below 1"),
    ],
)
def test_bad_values_are_refused_with_their_numbers(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimConfig(**values)
