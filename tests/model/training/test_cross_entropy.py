from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.training.cross_entropy import CHUNK_TOKENS, cross_entropy_sum
from tests.reference.losses import target_nats


def material(tokens: int, seed: int, vocabulary: int = 10) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, 6, generator=generator).requires_grad_()
    weight = torch.randn(vocabulary, 6, generator=generator).requires_grad_()
    return hidden, weight, torch.randint(0, vocabulary, (tokens,), generator=generator)


@given(st.integers(0, 8), st.integers(0, 999))
def test_it_is_the_sum_over_the_labels_and_its_terms(tokens: int, seed: int) -> None:
    hidden, weight, labels = material(tokens, seed)
    logits = (hidden @ weight.T).detach()
    expected = [target_nats(row, int(label)) for row, label in zip(logits, labels, strict=True)]
    total, terms = cross_entropy_sum(hidden, weight, labels)
    assert float(total.detach()) == pytest.approx(sum(expected), abs=1e-4)
    assert terms.tolist() == pytest.approx(expected, abs=1e-4)
    assert not terms.requires_grad


@pytest.mark.parametrize("tokens", [1, CHUNK_TOKENS, CHUNK_TOKENS + 1, 2 * CHUNK_TOKENS + 7])
def test_gradients_are_those_of_autograd(tokens: int) -> None:
    hidden, weight, labels = material(tokens, 1)
    actual = torch.autograd.grad(3 * cross_entropy_sum(hidden, weight, labels)[0], [hidden, weight])
    loss = torch.nn.functional.cross_entropy(hidden @ weight.T, labels, reduction="sum")
    expected = torch.autograd.grad(3 * loss, [hidden, weight])
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_under_autocast_products_are_bf16_and_sums_are_not() -> None:
    hidden, weight, labels = material(500, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = cross_entropy_sum(hidden, weight, labels)
        logits = hidden @ weight.T
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    expected = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    actual = torch.autograd.grad(loss, [hidden, weight])
    assert [gradient.dtype for gradient in actual] == [torch.float32, torch.float32]
    exact = torch.autograd.grad(expected, [hidden, weight])
    for ours, theirs in zip(actual, exact, strict=True):
        assert (ours - theirs).norm() < 0.01 * theirs.norm()


def test_many_equal_terms_are_summed_in_fp32() -> None:
    hidden, weight = torch.zeros(5_000, 4, dtype=torch.bfloat16), torch.zeros(10, 4, dtype=torch.bfloat16)
    loss, _ = cross_entropy_sum(hidden, weight, torch.zeros(5_000, dtype=torch.int64))
    assert float(loss) == pytest.approx(5_000 * math.log(10), rel=1e-5)


def test_a_hopeless_label_costs_its_distance_and_not_infinity() -> None:
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[500.0], [-500.0]])
    assert float(cross_entropy_sum(hidden, weight, torch.tensor([1]))[0]) == pytest.approx(1_000)
