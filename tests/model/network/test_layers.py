from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.network.layers import (
    CPU_QUERY_CHUNK,
    RMSNorm,
    attend,
    rotary_tables,
    rotate,
    segment_mask,
    segment_positions,
)
from tests.reference.attention import may_look, naive_attention, positions

Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
segments_of_row = st.lists(st.integers(0, 3), min_size=1, max_size=20)


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@pytest.mark.parametrize("oracle", [fused_attention, naive_attention])
@pytest.mark.parametrize("slots", [1, CPU_QUERY_CHUNK - 1, CPU_QUERY_CHUNK, CPU_QUERY_CHUNK + 41])
def test_attention_in_chunks_equals_attention_at_once(oracle: Attend, slots: int) -> None:
    generator = torch.Generator().manual_seed(slots)
    q, k, v = 2 * torch.randn(3, 2, 2, slots, 8, generator=generator)
    segments = torch.randint(0, 5, (2, slots), generator=generator).sort(dim=1).values
    mask = segment_mask(segments)
    torch.testing.assert_close(attend(q, k, v, mask), oracle(q, k, v, mask), atol=1e-5, rtol=1e-5)


@given(segments_of_row)
def test_positions_count_from_the_start_of_each_segment(segments: list[int]) -> None:
    assert segment_positions(torch.tensor([segments]))[0].tolist() == positions(segments)


def test_rows_of_a_batch_have_positions_of_their_own() -> None:
    segments = torch.tensor([[1, 1, 2, 2, 2, 0], [1, 2, 3, 3, 0, 0]])
    assert segment_positions(segments).tolist() == [[0, 1, 0, 1, 2, 0], [0, 0, 0, 1, 0, 1]]


@given(segments_of_row)
def test_mask_is_causal_and_ends_at_segments(segments: list[int]) -> None:
    assert segment_mask(torch.tensor([segments]))[0, 0].tolist() == may_look(segments)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 50), st.integers(0, 999))
def test_rotary_scores_depend_on_distance_alone(query_at: int, key_at: int, shift: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 1, 1, 1, 16, generator=generator)

    def score(query_position: int, key_position: int) -> Tensor:
        at_query = rotary_tables(torch.tensor([[query_position]]), 16, 10_000.0)
        at_key = rotary_tables(torch.tensor([[key_position]]), 16, 10_000.0)
        return (rotate(query, *at_query) * rotate(key, *at_key)).sum()

    torch.testing.assert_close(score(query_at, key_at), score(query_at + shift, key_at + shift), atol=1e-4, rtol=1e-4)


def test_rotary_turns_every_pair_unless_the_position_is_zero() -> None:
    x = torch.randn(1, 1, 2, 16, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, *rotary_tables(torch.tensor([[0, 5]]), 16, 10_000.0))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert (turned[:, :, 1] != x[:, :, 1]).all()
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_is_computed_in_fp32_and_keeps_the_type(dtype: torch.dtype) -> None:
    norm = RMSNorm(32, eps=1e-6)
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    x = (30 * torch.randn(4, 32, generator=torch.Generator().manual_seed(1))).to(dtype)
    expected = x.double() / (x.double().square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * norm.weight
    normed = norm(x)
    assert normed.dtype == dtype
    torch.testing.assert_close(normed, expected.to(dtype))
