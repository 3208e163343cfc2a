from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from model.chat import render_prompt
from model.generate import reply, sample
from model.tokenizer import END_OF_TEXT, TURN_END
from model.transformer import Transformer
from tests.model.tiny import chain_model, tiny_config

QUESTION = [("user", "the cat?")]


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    return Transformer(tiny_config(vocab_size=tokenizer.get_vocab_size()), seed=1)


def chained(tokenizer: Tokenizer, tokens: list[str]) -> Transformer:
    """A model that answers with these tokens, after the line feed that ends a prompt."""
    config = tiny_config(vocab_size=tokenizer.get_vocab_size(), num_hidden_layers=1)
    chain = [render_prompt(tokenizer, QUESTION)[-1], *(tokenizer.token_to_id(token) for token in tokens)]
    return chain_model(config, chain)


def greedy(tokenizer: Tokenizer, model: Transformer, prompt: list[int]) -> str:
    """The eight best next tokens, one after the other."""
    ids = list(prompt)
    for _ in range(8):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    spoken = ids[len(prompt) :]
    assert not {0, 2} & set(spoken), "this model should not end its turn, or the test shows little"
    return str(tokenizer.decode(spoken)).strip()


def test_greedy_replies_are_the_best_next_tokens(tokenizer: Tokenizer, model: Transformer) -> None:
    expected = greedy(tokenizer, model, render_prompt(tokenizer, QUESTION))
    for seed in (0, 1):
        assert reply(model, tokenizer, QUESTION, max_new_tokens=8, temperature=0, seed=seed) == expected


@pytest.mark.parametrize("stop", [TURN_END, END_OF_TEXT])
def test_a_reply_stops_at_an_end_marker_and_does_not_show_it(tokenizer: Tokenizer, stop: str) -> None:
    model = chained(tokenizer, ["a", "b", stop, "c", "d"])
    assert reply(model, tokenizer, QUESTION, temperature=0) == "ab"


def test_a_reply_stops_at_its_limit(tokenizer: Tokenizer) -> None:
    model = chained(tokenizer, ["a", "b", "c", TURN_END])
    assert reply(model, tokenizer, QUESTION, max_new_tokens=2, temperature=0) == "ab"


def test_the_same_seed_gives_the_same_reply(tokenizer: Tokenizer, model: Transformer) -> None:
    def sampled(seed: int) -> str:
        return reply(model, tokenizer, QUESTION, max_new_tokens=8, temperature=1.5, top_p=1.0, seed=seed)

    replies = [sampled(seed) for seed in range(4)]
    torch.manual_seed(77)
    assert [sampled(seed) for seed in range(4)] == replies
    assert len(set(replies)) > 1


def test_a_tiny_nucleus_is_greedy(tokenizer: Tokenizer, model: Transformer) -> None:
    greedy = reply(model, tokenizer, QUESTION, max_new_tokens=8, temperature=0)
    assert reply(model, tokenizer, QUESTION, max_new_tokens=8, temperature=1.5, top_p=1e-6, seed=3) == greedy


def test_the_whole_conversation_is_read(tokenizer: Tokenizer, model: Transformer) -> None:
    replies = {
        reply(model, tokenizer, [("user", first), ("assistant", "b"), ("user", "c")], max_new_tokens=8, temperature=0)
        for first in ("the", "cat")
    }
    assert len(replies) == 2


def test_a_prompt_longer_than_the_context_loses_its_start(tokenizer: Tokenizer, model: Transformer) -> None:
    """Of a context of 64 tokens, 8 are for the reply and 56 for the end of the prompt."""
    question = [("user", "the assistant asked the user about the system " * 12)]
    prompt = render_prompt(tokenizer, question)
    expected = greedy(tokenizer, model, prompt[-56:])
    assert expected != greedy(tokenizer, model, prompt), "the start should matter, or the test shows nothing"
    assert reply(model, tokenizer, question, max_new_tokens=8, temperature=0) == expected


@pytest.mark.parametrize("training", [True, False])
def test_replying_leaves_the_mode_of_the_model(tokenizer: Tokenizer, model: Transformer, training: bool) -> None:
    model.train(training)
    reply(model, tokenizer, QUESTION, max_new_tokens=1)
    assert model.training is training


@given(st.lists(st.floats(-4, 4), min_size=1, max_size=8), st.floats(0.3, 3), st.floats(0.01, 1), st.integers(0, 99))
def test_samples_come_from_the_smallest_set_that_holds_top_p(
    logits: list[float], temperature: float, top_p: float, seed: int
) -> None:
    logits_V = torch.tensor(logits)
    probability = (logits_V.double() / temperature).softmax(dim=0).tolist()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(10):
        token = sample(logits_V, temperature, top_p, generator)
        likelier = sum(p for p in probability if p > probability[token] * (1 + 1e-6))
        assert likelier < top_p + 1e-6
    assert sample(logits_V, 0, top_p, generator) == logits.index(max(logits))


def test_sampling_follows_the_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_V = torch.tensor([0.7, 0.2, 0.1]).log()
    draws = [sample(logits_V, 1.0, 1.0, generator) for _ in range(500)]
    assert [draws.count(token) / 500 for token in range(3)] == pytest.approx([0.7, 0.2, 0.1], abs=0.06)
    cooler = [sample(logits_V, 0.5, 1.0, generator) for _ in range(500)]
    assert cooler.count(0) / 500 == pytest.approx(0.49 / 0.54, abs=0.06)
    nucleus = [sample(logits_V, 1.0, 0.85, generator) for _ in range(500)]
    assert nucleus.count(2) == 0 < nucleus.count(1)
