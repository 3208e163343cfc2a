from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from model.config.network import ExpertPath, Gate
from model.experts.dispatch import group_multiple
from model.experts.mixture import PRODUCTS, RoutedExperts, SparseMoE
from model.experts.router import TopKRouter
from model.network.transformer import Transformer
from tests.model.tiny import tiny_config
from tests.reference.moe import looped_experts, swiglu


def random_experts(num_experts: int, generator: torch.Generator, **changes: Any) -> RoutedExperts:
    experts = RoutedExperts(tiny_config(num_experts=num_experts, hidden_size=16, moe_intermediate_size=8, **changes))
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return experts


def assert_equals_loop(experts: RoutedExperts, experts_NK: torch.Tensor, generator: torch.Generator) -> None:
    """Same output, and same gradients of a random projection of it."""
    tokens = len(experts_NK)
    x = torch.randn(tokens, 16, generator=generator).requires_grad_()
    weights = torch.rand(experts_NK.shape, generator=generator).requires_grad_()
    direction = torch.randn(tokens, 16, generator=generator)
    leaves = [x, weights, experts.gate_up_proj, experts.down_proj]

    fast = experts(x, weights, experts_NK)
    slow = looped_experts(x, experts.gate_up_proj, experts.down_proj, weights, experts_NK)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    fast_gradients = torch.autograd.grad((fast * direction).sum(), leaves)
    slow_gradients = torch.autograd.grad((slow * direction).sum(), leaves)
    for ours, expected in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("path", PRODUCTS)
@given(data=st.data(), seed=st.integers(0, 999))
def test_experts_equal_the_loop_forward_and_backward(path: ExpertPath, data: st.DataObject, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    num_experts = data.draw(st.integers(2, 6))
    top_k = data.draw(st.integers(1, num_experts))
    choices = st.permutations(range(num_experts)).map(lambda order: order[:top_k])
    experts_NK = torch.tensor(data.draw(st.lists(choices, min_size=1, max_size=10)))
    assert_equals_loop(random_experts(num_experts, generator, expert_path=path), experts_NK, generator)


@pytest.mark.parametrize("path", PRODUCTS)
@pytest.mark.parametrize("gate", ["softmax", "sparsemax"])
def test_many_tokens_equal_the_loop(path: ExpertPath, gate: Gate) -> None:
    """So many that groups are rounded up; the last expert is empty but for that."""
    generator = torch.Generator().manual_seed(6)
    experts_NK = torch.rand(300, 3, generator=generator).topk(2).indices
    assert group_multiple(experts_NK.numel() // 4) > 1
    assert_equals_loop(random_experts(4, generator, gate=gate, expert_path=path), experts_NK, generator)


@pytest.mark.parametrize("path", PRODUCTS)
def test_choices_without_weight_are_not_computed(path: ExpertPath) -> None:
    """The outputs of the experts for them would not even be finite."""
    generator = torch.Generator().manual_seed(4)
    experts = random_experts(3, generator, gate="sparsemax", expert_path=path)
    x = torch.randn(4, 16, generator=generator)
    weights_NK = torch.tensor([[0.7, 0.3], [1.0, 0.0], [0.6, 0.4], [1.0, 0.0]])
    experts_NK = torch.tensor([[0, 1], [1, 2], [1, 0], [0, 2]])
    expected = looped_experts(x, experts.gate_up_proj, experts.down_proj, weights_NK, experts_NK)
    with torch.no_grad():
        experts.gate_up_proj[2] = float("nan")
    torch.testing.assert_close(experts(x, weights_NK, experts_NK), expected, atol=1e-5, rtol=1e-5)


def test_shared_experts_see_every_token() -> None:
    generator = torch.Generator().manual_seed(5)
    mixture = SparseMoE(tiny_config(num_shared_experts=2))
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    x_BTD = torch.randn(2, 5, 32, generator=generator)
    mixed_BTD, routing = mixture(x_BTD)
    x_ND, shared = x_BTD.flatten(0, 1), mixture.shared_experts
    assert shared is not None
    assert shared.gate_proj.out_features == 32
    routed = looped_experts(
        x_ND, mixture.experts.gate_up_proj, mixture.experts.down_proj, routing.weights_NK, routing.experts_NK
    )
    gate_up = torch.cat([shared.gate_proj.weight, shared.up_proj.weight])
    expected = routed + torch.stack([swiglu(x, gate_up, shared.down_proj.weight) for x in x_ND])
    torch.testing.assert_close(mixed_BTD.flatten(0, 1), expected, atol=1e-5, rtol=1e-5)


def test_an_expert_without_tokens_gets_a_zero_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    experts = random_experts(4, generator)
    experts_NK = torch.tensor([[0, 1], [3, 0], [1, 3]])
    assert_equals_loop(experts, experts_NK, generator)

    experts(torch.randn(3, 16, generator=generator), torch.full((3, 2), 0.5), experts_NK).sum().backward()
    for gradient in (experts.gate_up_proj.grad, experts.down_proj.grad):
        assert gradient is not None
        assert not gradient[2].any()
        assert all(gradient[used].any() for used in (0, 1, 3))


def test_equal_experts_are_one_dense_feed_forward_block() -> None:
    generator = torch.Generator().manual_seed(1)
    mixture = SparseMoE(tiny_config())
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.normal_(0, 0.3, generator=generator)
        for stacked in mixture.experts.parameters():
            stacked.copy_(stacked[:1].expand_as(stacked))
    x_BTD = torch.randn(2, 5, 32, generator=generator)
    mixed_BTD, _ = mixture(x_BTD)
    dense = [swiglu(x, mixture.experts.gate_up_proj[0], mixture.experts.down_proj[0]) for x in x_BTD.flatten(0, 1)]
    torch.testing.assert_close(mixed_BTD.flatten(0, 1), torch.stack(dense), atol=1e-5, rtol=1e-5)


@given(st.integers(2, 6), st.integers(0, 999))
def test_router_picks_the_best_experts_and_renormalises_their_probabilities(num_experts: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    router = TopKRouter(tiny_config(num_experts=num_experts, num_experts_per_tok=2)).requires_grad_(False)
    torch.nn.init.normal_(router.weight, generator=generator)
    routing = router(torch.randn(7, 32, generator=generator))
    torch.testing.assert_close(routing.weights_NK.sum(dim=-1), torch.ones(7))
    for logits, weights, experts in zip(routing.logits_NE, routing.weights_NK, routing.experts_NK, strict=True):
        best = sorted(range(num_experts), key=lambda e: -float(logits[e]))[:2]
        assert experts.tolist() == best
        torch.testing.assert_close(weights, logits[best].softmax(dim=0))


def test_router_learns_from_the_language_model_loss_alone() -> None:
    model = Transformer(tiny_config())
    ids = torch.arange(3, 43).view(2, 20)
    F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    for block in model.layers:
        assert block.mlp.gate.weight.grad.abs().max() > 1e-6


def test_router_stays_fp32_under_autocast_while_experts_follow_it() -> None:
    model = Transformer(tiny_config())
    mixture = model.layers[0].mlp
    x = torch.randn(1, 50, 32, generator=torch.Generator().manual_seed(2))
    mixed, routing = mixture(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed_bf16, routing_bf16 = mixture(x)
    for plain, autocast in zip(routing, routing_bf16, strict=True):
        assert autocast.dtype == plain.dtype
        assert torch.equal(autocast, plain)
    assert routing_bf16.logits_NE.dtype == routing_bf16.weights_NK.dtype == torch.float32
    assert mixed_bf16.dtype == torch.float32
    torch.testing.assert_close(mixed_bf16, mixed, atol=0.05, rtol=0.05)
    wholly_bf16 = copy.deepcopy(mixture.experts).bfloat16()(x[0].bfloat16(), routing.weights_NK, routing.experts_NK)
    assert torch.equal(mixed_bf16[0].bfloat16(), wholly_bf16)
