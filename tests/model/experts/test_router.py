from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config.network import Gate, ModelConfig
from model.experts.router import TopKRouter, gate_scores, limit_groups
from tests.model.tiny import tiny_config
from tests.reference import router as reference

GATES: tuple[Gate, ...] = ("softmax", "sigmoid", "sparsemax", "entmax15")
rows = st.lists(st.floats(-6, 6), min_size=2, max_size=9)


def router_of(config: ModelConfig, seed: int) -> TopKRouter:
    router = TopKRouter(config)
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(seed))
    return router


def tokens(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("gate", GATES)
@given(logits=rows)
def test_gates_equal_their_definitions(gate: Gate, logits: list[float]) -> None:
    scores = gate_scores(torch.tensor([logits]), gate)[0]
    expected = torch.tensor(reference.gate(gate, logits), dtype=torch.float64)
    torch.testing.assert_close(scores.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("gate", ["softmax", "sparsemax", "entmax15"])
def test_scores_are_a_distribution_and_sparse_gates_leave_experts_out(gate: Gate) -> None:
    scores = gate_scores(tokens(50, 0), gate)
    torch.testing.assert_close(scores.sum(dim=-1), torch.ones(50))
    support = (scores > 0).sum(dim=-1).float().mean()
    assert (support < 16) == (gate != "softmax")


@given(st.data(), st.sampled_from([(4, 2), (6, 3), (8, 4), (6, 6)]), st.integers(0, 999))
def test_groups_limit_the_choice(data: st.DataObject, shape: tuple[int, int], seed: int) -> None:
    experts, groups = shape
    kept = data.draw(st.integers(1, groups))
    scores = torch.rand(5, experts, generator=torch.Generator().manual_seed(seed))
    top_k = data.draw(st.integers(1, kept * experts // groups))
    best = limit_groups(scores, groups, kept).topk(top_k, dim=-1).indices
    for row, actual in zip(scores.tolist(), best.tolist(), strict=True):
        assert actual == reference.chosen(row, top_k, groups, kept)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("norm", [True, False])
def test_weights_are_the_scores_of_the_chosen_renormalised_if_asked_for(gate: Gate, norm: bool) -> None:
    config = tiny_config(num_experts=8, num_expert_groups=4, num_groups_per_tok=2, gate=gate, norm_topk_prob=norm)
    routing = router_of(config, 1)(tokens(20, 2))
    for logits, weights, experts in zip(
        routing.logits_NE.tolist(), routing.weights_NK, routing.experts_NK.tolist(), strict=True
    ):
        scores = reference.gate(gate, logits)
        expected = torch.tensor([scores[e] for e in experts])
        torch.testing.assert_close(weights, expected / expected.sum() if norm else expected, atol=1e-5, rtol=1e-4)
        assert sum(scores[e] for e in experts) == pytest.approx(
            sum(scores[e] for e in reference.chosen(scores, 2, 4, 2)), abs=1e-5
        )


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("top_k", "norm"), [(1, False), (2, True), (2, False)])
def test_every_router_that_is_allowed_learns_from_its_weights(gate: Gate, top_k: int, norm: bool) -> None:
    config = tiny_config(num_experts=4, num_experts_per_tok=top_k, gate=gate, norm_topk_prob=norm)
    router = router_of(config, 3)
    routing = router(0.1 * tokens(20, 4))
    (routing.weights_NK * tokens(20, 5)[:, :top_k]).sum().backward()
    assert router.weight.grad is not None
    assert router.weight.grad.abs().max() > 1e-3


def test_a_single_renormalised_expert_gives_the_router_no_gradient() -> None:
    """Why it is refused: the weight is the constant 1."""
    router = router_of(tiny_config(num_experts_per_tok=1, minimind_compatible=True), 3)
    routing = router(tokens(20, 4))
    assert torch.equal(routing.weights_NK, torch.ones(20, 1))
    routing.weights_NK.square().sum().backward()
    assert router.weight.grad is not None
    assert router.weight.grad.abs().max() < 1e-6


def test_the_bias_changes_the_choice_and_not_the_weights() -> None:
    router = router_of(tiny_config(num_experts=6, router_bias=True), 6)
    x = tokens(40, 7)
    before = router(x)
    assert router.e_score_correction_bias is not None
    router.e_score_correction_bias[2] = 10.0
    after = router(x)
    assert (after.experts_NK == 2).any(dim=-1).all()
    assert not (before.experts_NK == 2).any(dim=-1).all()
    assert torch.equal(after.scores_NE, before.scores_NE)
    raw = after.scores_NE.gather(-1, after.experts_NK)
    torch.testing.assert_close(after.weights_NK, raw / raw.sum(dim=-1, keepdim=True))


def test_rebalancing_evens_the_load_without_a_loss() -> None:
    router = router_of(tiny_config(num_experts=8, router_bias=True), 8)
    x = 0.2 * tokens(400, 9) + 0.1

    def load() -> torch.Tensor:
        return torch.bincount(router(x).experts_NK.flatten(), minlength=8)

    worst_before = float(load().max() / load().float().mean())
    for _ in range(200):
        router.rebalance(load(), rate=1e-2)
    assert router.e_score_correction_bias is not None
    assert float(router.e_score_correction_bias.mean()) == pytest.approx(0, abs=1e-6)
    assert worst_before > 2
    assert float(load().max() / load().float().mean()) < 1.3


def test_fading_brings_the_bias_to_exactly_nothing_in_equal_strides() -> None:
    router = router_of(tiny_config(num_experts=4, router_bias=True), 0)
    bias = router.e_score_correction_bias
    assert bias is not None
    bias.copy_(torch.tensor([0.4, -0.4, 0.2, -0.2]))
    seen = []
    for left in (3, 2, 1, 0):
        router.fade_bias(left)
        seen.append(float(bias[0]))
    assert seen == pytest.approx([0.3, 0.2, 0.1, 0.0])
    assert not bias.any()
