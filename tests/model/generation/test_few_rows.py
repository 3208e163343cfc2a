from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from model.config.network import ModelConfig
from model.experts.mixture import RoutedExperts
from model.generation.decoder import Decoder, few_rows_twin
from model.generation.few_rows import FEW_ROWS, FewRowsNorm, FewRowsProduct, FewTokensExperts, attend_with_one
from model.network.layers import Attention, RMSNorm
from model.network.transformer import Transformer
from tests.model.tiny import tiny_config
from tests.reference.moe import looped_experts

KINDS: list[dict[str, Any]] = [
    {},
    {"num_attention_heads": 6, "num_key_value_heads": 3, "vocab_size": 301},
    {"num_attention_heads": 4, "num_key_value_heads": 4, "num_experts": 7, "num_experts_per_tok": 3},
    {"dense": True},
    {"num_shared_experts": 2, "gate": "sigmoid", "router_bias": True},
    {"gate": "sparsemax", "num_experts_per_tok": 3, "expert_path": "loop"},
]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_near(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 8, 9, FEW_ROWS + 1])
@pytest.mark.parametrize("outputs", [1, 2, 40, 41])
def test_product_of_few_rows_is_the_linear_one(rows: int, outputs: int, dtype: torch.dtype) -> None:
    x, weight = random(rows, 24).to(dtype), random(outputs, 24, seed=1).to(dtype)
    product = FewRowsProduct(weight)
    for _ in range(2):  # the first may lay out the weights
        actual = product(x)
        assert actual.shape == (rows, outputs)
        rounding = 0.02 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(actual, F.linear(x, weight), atol=5 * rounding, rtol=rounding)


@given(st.integers(1, 33), st.floats(1e-6, 0.5), st.floats(1e-4, 1e3))
def test_norm_of_few_rows_is_the_other_one(size: int, eps: float, scale: float) -> None:
    norm = RMSNorm(size, eps)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(size))
    x = scale * random(3, 2, size)
    torch.testing.assert_close(FewRowsNorm(norm.weight, eps)(x), norm(x), atol=1e-5, rtol=1e-5)


def test_norm_of_nothing_is_nothing() -> None:
    assert (FewRowsNorm(torch.ones(8), 1e-6)(torch.zeros(2, 8)) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_of_one_query_is_the_fused_one(dtype: torch.dtype) -> None:
    q, k, v = (random(3, heads, slots, 8, seed=slots).to(dtype) for heads, slots in ((4, 1), (2, 9), (2, 9)))
    bias = torch.zeros(3, 1, 1, 9, dtype=dtype)
    bias[1, ..., :4] = bias[2, ..., :8] = float("-inf")
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), bias.double(), enable_gqa=True)
    rounding = 0.02 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(attend_with_one(q, k, v, bias).double(), expected, atol=rounding, rtol=rounding)


@given(st.integers(1, FEW_ROWS + 2), st.integers(1, 5), st.integers(0, 99))
def test_experts_for_few_tokens_are_the_looped_ones(tokens: int, top_k: int, seed: int) -> None:
    config = tiny_config(num_experts=5, num_experts_per_tok=top_k, minimind_compatible=True)
    experts = RoutedExperts(config).requires_grad_(False)
    for number, parameter in enumerate(experts.parameters()):
        parameter.copy_(random(*parameter.shape, seed=number))
    x, scores = random(tokens, 32, seed=seed), random(tokens, 5, seed=seed + 1).softmax(dim=-1)
    weights, chosen = scores.topk(top_k, dim=-1)
    expected = looped_experts(x, experts.gate_up_proj, experts.down_proj, weights, chosen)
    torch.testing.assert_close(FewTokensExperts(experts)(x, weights, chosen), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 3, FEW_ROWS + 2])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_steps_give_the_scores_of_the_whole_model(kind: dict[str, Any], rows: int) -> None:
    """Rows of different lengths, some of which leave on the way."""
    model = Transformer(tiny_config(**kind), seed=2).requires_grad_(False)
    for number, parameter in enumerate(model.parameters()):
        if parameter.dim() == 1:
            parameter.copy_(1 + 0.5 * random(*parameter.shape, seed=number))
    ids = torch.randint(3, 300, (rows, 14), generator=torch.Generator().manual_seed(rows))
    pads = torch.arange(rows) % 6
    segments = (torch.arange(8) >= pads[:, None]).long()
    decoder = Decoder(model, 14)

    def expected(row: int, end: int) -> Tensor:
        return model(ids[row : row + 1, pads[row] : end])[0, -1]

    left = list(range(rows))
    scores = decoder.read(ids[:, :8], segments)
    for end in range(8, 15):
        assert_near(scores, torch.stack([expected(row, end) for row in left]))
        if end in (10, 12) and len(left) > 1:
            decoder.keep(torch.arange(1, len(left)))
            left = left[1:]
        if end < 14:
            scores = decoder.step(ids[left, end])


def test_steps_work_in_the_type_of_the_model() -> None:
    model = Transformer(tiny_config(), seed=2).requires_grad_(False).bfloat16()
    ids = torch.randint(3, 300, (2, 6), generator=torch.Generator().manual_seed(0))
    decoder = Decoder(model, 6)
    decoder.read(ids[:, :5], torch.ones(2, 5, dtype=torch.long))
    scores = decoder.step(ids[:, 5])
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, model(ids)[:, -1].float(), atol=0.2, rtol=0.1)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_twin_shares_its_weights_and_leaves_the_model_alone(kind: dict[str, Any]) -> None:
    model = Transformer(tiny_config(**kind), seed=2)
    modules = [(name, type(module)) for name, module in model.named_modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twin = few_rows_twin(model)
    assert [(name, type(module)) for name, module in model.named_modules()] == modules
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(module, nn.Linear | RMSNorm | Attention | RoutedExperts) for module in twin.modules())
    own = {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    assert {id(tensor) for tensor in [*twin.parameters(), *twin.buffers()]} <= own


def test_no_expert_is_copied_before_it_is_needed() -> None:
    config: ModelConfig = tiny_config()
    experts = RoutedExperts(config)
    few = FewTokensExperts(experts)
    starts = [products[0].weight_OI.data_ptr() for products in (few.gate_up_2FD, few.down_DF)]
    assert starts == [experts.gate_up_proj.data_ptr(), experts.down_proj.data_ptr()]
