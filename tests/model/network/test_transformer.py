from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.network.transformer import Transformer
from tests.model.tiny import tiny_config

documents = st.lists(st.lists(st.integers(3, 299), min_size=1, max_size=9), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return Transformer(tiny_config()).requires_grad_(False)


@settings(max_examples=15)
@given(documents, st.integers(0, 5))
def test_packed_documents_give_the_logits_they_give_alone(
    model: Transformer, documents: list[list[int]], padding: int
) -> None:
    ids = [token for document in documents for token in document] + [0] * padding
    segments = [number for number, document in enumerate(documents, start=1) for _ in document] + [0] * padding
    packed = model(torch.tensor([ids]), torch.tensor([segments]))[0]
    start = 0
    for document in documents:
        alone = model(torch.tensor([document]))[0]
        torch.testing.assert_close(packed[start : start + len(document)], alone, atol=1e-4, rtol=1e-4)
        start += len(document)


def test_context_matters_within_a_document_but_the_future_does_not(model: Transformer) -> None:
    ids = torch.arange(10, 22)[None]
    changed = ids.clone()
    changed[0, 6] = 200
    before, after = model(ids)[0], model(changed)[0]
    torch.testing.assert_close(before[:6], after[:6], atol=1e-5, rtol=1e-5)
    assert ((before[6:] - after[6:]).abs().amax(dim=-1) > 1e-3).all()


def test_rows_do_not_see_each_other(model: Transformer) -> None:
    ids = torch.arange(10, 34).view(2, 12)
    torch.testing.assert_close(model(ids)[1], model(ids[1:])[0], atol=1e-5, rtol=1e-5)


def test_weights_are_a_function_of_the_seed() -> None:
    first, second, other = (Transformer(tiny_config(), seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if first[name].dim() > 1)


def test_initial_scale_of_every_kind_of_weight() -> None:
    config = tiny_config(hidden_size=64, num_hidden_layers=2, initializer_range=0.02)
    for name, parameter in Transformer(config).named_parameters():
        if name.endswith("norm.weight"):
            assert (parameter == 1).all(), name
        else:
            writes_residual = name.endswith(("self_attn.o_proj.weight", "mlp.experts.down_proj"))
            expected = 0.02 / math.sqrt(4) if writes_residual else 0.02
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.15), name
