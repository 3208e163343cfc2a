from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.experts.losses import balance_loss, expert_counts, router_z_loss
from model.experts.router import Routing
from tests.reference.losses import looped_balance_loss, looped_z_loss

EXPERTS = 5


def routing_of(logits_NE: torch.Tensor, top_k: int) -> Routing:
    scores_NE = logits_NE.softmax(dim=-1)
    top = scores_NE.topk(top_k, dim=-1)
    return Routing(logits_NE, scores_NE, top.values / top.values.sum(dim=-1, keepdim=True), top.indices)


def random_routing(num_layers: int, num_tokens: int, seed: int) -> list[Routing]:
    generator = torch.Generator().manual_seed(seed)
    return [routing_of(2 * torch.randn(num_tokens, EXPERTS, generator=generator), 2) for _ in range(num_layers)]


def balance_of(routing: list[Routing], real_N: torch.Tensor) -> torch.Tensor:
    return balance_loss(routing, real_N, expert_counts(routing, real_N, EXPERTS))


def test_balance_loss_is_one_for_a_uniform_router() -> None:
    routing = [routing_of(torch.zeros(12, EXPERTS), 2)]
    assert float(balance_of(routing, torch.ones(12, dtype=torch.bool))) == pytest.approx(1.0)


def test_balance_loss_is_the_number_of_experts_when_one_takes_all() -> None:
    logits = torch.zeros(12, EXPERTS)
    logits[:, 3] = 50.0
    assert float(balance_of([routing_of(logits, 1)], torch.ones(12, dtype=torch.bool))) == pytest.approx(EXPERTS)


def test_balance_loss_pushes_probability_away_from_the_busiest_expert() -> None:
    logits = torch.zeros(12, EXPERTS)
    logits[:, 3] = 1.0
    logits.requires_grad_()
    balance_of([routing_of(logits, 1)], torch.ones(12, dtype=torch.bool)).backward()
    assert (logits.grad[:, 3] > 0).all()
    assert (logits.grad[:, :3] < 0).all()


@given(st.integers(1, 3), st.lists(st.booleans(), min_size=1, max_size=12).filter(any), st.integers(0, 999))
def test_router_losses_equal_their_definitions(num_layers: int, real: list[bool], seed: int) -> None:
    routing = random_routing(num_layers, len(real), seed)
    real_N = torch.tensor(real)
    assert float(balance_of(routing, real_N)) == pytest.approx(looped_balance_loss(routing, real, EXPERTS), rel=1e-5)
    assert float(router_z_loss(routing, real_N)) == pytest.approx(looped_z_loss(routing, real), rel=1e-5)


def test_balance_loss_takes_its_shares_from_the_counts_it_is_given() -> None:
    """The caller counts over all micro-batches of a step; this call's own choices must not matter."""
    routing = random_routing(1, 12, seed=0)
    mean_E = routing[0].logits_NE.softmax(dim=-1).mean(dim=0)
    counts_LE = torch.tensor([[0, 0, 0, 0, 7]])
    loss = balance_loss(routing, torch.ones(12, dtype=torch.bool), counts_LE)
    assert float(loss) == pytest.approx(EXPERTS * float(mean_E[4]), rel=1e-5)


@given(st.data(), st.integers(1, 8), st.integers(0, 999))
def test_padding_anywhere_changes_no_router_loss_and_no_count(data: st.DataObject, num_real: int, seed: int) -> None:
    real = data.draw(st.permutations([True] * num_real + [False] * data.draw(st.integers(1, 8))))
    real_N = torch.tensor(real)
    padded = random_routing(2, len(real), seed)
    bare = [Routing(*(tensor[real_N] for tensor in layer)) for layer in padded]
    all_N = torch.ones(num_real, dtype=torch.bool)

    counts = expert_counts(padded, real_N, EXPERTS)
    assert torch.equal(counts, expert_counts(bare, all_N, EXPERTS))
    assert counts.sum(dim=1).tolist() == [2 * num_real] * 2
    torch.testing.assert_close(balance_of(padded, real_N), balance_of(bare, all_N))
    torch.testing.assert_close(router_z_loss(padded, real_N), router_z_loss(bare, all_N))
