from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.network.cache import KeyValueCache
from model.network.transformer import Transformer
from tests.model.tiny import tiny_config

documents = st.lists(st.lists(st.integers(3, 299), min_size=1, max_size=9), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return Transformer(tiny_config(num_attention_heads=4, num_key_value_heads=2)).requires_grad_(False)


def ids_of(rows: int, tokens: int) -> Tensor:
    return torch.randint(3, 300, (rows, tokens), generator=torch.Generator().manual_seed(rows * tokens))


def assert_near(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_filling_a_cache_changes_no_bit(model: Transformer) -> None:
    ids, segments = ids_of(2, 20), torch.tensor([[0] * 5 + [1] * 15, [1] * 12 + [2] * 8])
    cache = KeyValueCache(model.config, 20)
    assert torch.equal(model.hidden(ids, segments, cache)[0], model.hidden(ids, segments)[0])
    assert cache.length == 20


@settings(max_examples=15)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(1, 3))
def test_reading_in_pieces_is_reading_at_once(model: Transformer, sizes: list[int], rows: int) -> None:
    ids = ids_of(rows, sum(sizes))
    cache = KeyValueCache(model.config, sum(sizes) + 3)
    pieces = [model.hidden(piece, cache=cache)[0] for piece in ids.split(sizes, dim=1)]
    assert_near(torch.cat(pieces, dim=1), model.hidden(ids)[0])


@settings(max_examples=15)
@given(documents, st.integers(1, 5))
def test_left_padding_changes_no_row(model: Transformer, prompts: list[list[int]], more: int) -> None:
    longest = max(map(len, prompts))
    ids = torch.tensor([[7] * (longest - len(prompt)) + prompt for prompt in prompts])
    segments = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    following = ids_of(len(prompts), more)
    cache = KeyValueCache(model.config, longest + more)
    read = [model.hidden(ids, segments, cache)[0][:, -1:]]
    read += [model.hidden(column[:, None], cache=cache)[0] for column in following.unbind(dim=1)]
    for row, prompt in enumerate(prompts):
        alone = model.hidden(torch.tensor([prompt + following[row].tolist()]))[0][0, len(prompt) - 1 :]
        assert_near(torch.cat(read, dim=1)[row], alone)


def test_a_row_goes_on_with_its_last_document(model: Transformer) -> None:
    """Packed rows: what lies before the last change of segment is never looked at again."""
    ids, segments = ids_of(2, 16), torch.tensor([[1] * 4 + [2] * 8, [1] * 10 + [2] * 2])
    cache = KeyValueCache(model.config, 16)
    model.hidden(ids[:, :12], segments, cache)
    after = model.hidden(ids[:, 12:], cache=cache)[0]
    for row, start in enumerate((4, 10)):
        assert_near(after[row], model.hidden(ids[row : row + 1, start:])[0][0, 12 - start :])


@pytest.mark.parametrize("kept", [[2, 0], [1], [0, 1, 2]])
def test_rows_that_are_kept_go_on_as_if_alone(model: Transformer, kept: list[int]) -> None:
    ids, segments = ids_of(3, 14), torch.tensor([[0] * pad + [1] * (10 - pad) for pad in (0, 4, 7)])
    cache = KeyValueCache(model.config, 14)
    model.hidden(ids[:, :10], segments, cache)
    cache.keep(torch.tensor(kept))
    after = model.hidden(ids[kept, 10:], cache=cache)[0]
    for place, row in enumerate(kept):
        pad = (0, 4, 7)[row]
        assert_near(after[place], model.hidden(ids[row : row + 1, pad:])[0][0, 10 - pad :])


def test_a_cache_takes_the_type_of_what_is_read_and_autocast_goes_on(model: Transformer) -> None:
    ids = ids_of(2, 12)
    cache = KeyValueCache(model.config, 12)
    with torch.autocast("cpu", torch.bfloat16):
        pieces = [model.hidden(piece, cache=cache)[0] for piece in ids.split([9, 1, 1, 1], dim=1)]
    assert {layer.k_BKSC.dtype for layer in cache.layers} == {torch.bfloat16}
    torch.testing.assert_close(torch.cat(pieces, dim=1).float(), model.hidden(ids)[0], atol=0.15, rtol=0.1)


@pytest.mark.parametrize("pieces", [[9], [8, 1], [5, 4]])
def test_a_full_cache_says_so(model: Transformer, pieces: list[int]) -> None:
    *fitting, last = ids_of(1, 9).split(pieces, dim=1)
    cache = KeyValueCache(model.config, 8)
    for piece in fitting:
        model.hidden(piece, cache=cache)
    with pytest.raises(ValueError, match="room for 8 tokens, not 9"):
        model.hidden(last, cache=cache)


def test_no_key_is_kept_once_for_each_query_head(model: Transformer) -> None:
    cache = KeyValueCache(model.config, 30)
    model.hidden(ids_of(3, 5), cache=cache)
    assert {layer.k_BKSC.shape for layer in cache.layers} == {(3, 2, 30, 16)}
    assert {layer.v_BKSC.shape for layer in cache.layers} == {(3, 2, 30, 16)}
