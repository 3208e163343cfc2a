from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from model.config.sampling import Sampling
from model.exchange.export import export_folder
from model.generation.generate import generate, reply, reply_pieces, stream
from model.generation.sampling import CANDIDATES, penalise, sample
from model.network.transformer import Transformer
from model.tokens.chat import render_prompt
from model.tokens.tokenizer import END_OF_TEXT, TURN_END
from tests.model.tiny import chain_model, silenced, tiny_config
from tests.reference.generate import chosen, penalised, slow_generate

QUESTION = [("user", "the cat?")]
prompts_of_a_batch = st.lists(st.lists(st.integers(3, 339), min_size=1, max_size=12), min_size=1, max_size=4)
ways_to_sample = st.fixed_dictionaries(
    {
        "max_new_tokens": st.integers(1, 8),
        "temperature": st.sampled_from([0.0, 0.0, 0.3, 1.0]),
        "top_p": st.sampled_from([0.2, 0.9, 1.0]),
        "repetition_penalty": st.sampled_from([1.0, 1.0, 0.7, 1.8]),
    }
)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    """Weights large enough that it does not repeat the same token."""
    return Transformer(tiny_config(vocab_size=tokenizer.get_vocab_size(), initializer_range=0.6), seed=1)


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
        assert reply(model, tokenizer, QUESTION, Sampling(max_new_tokens=8, temperature=0, seed=seed)) == expected


@pytest.mark.parametrize("stop", [TURN_END, END_OF_TEXT])
def test_a_reply_stops_at_an_end_marker_and_does_not_show_it(tokenizer: Tokenizer, stop: str) -> None:
    model = chained(tokenizer, ["a", "b", stop, "c", "d"])
    assert reply(model, tokenizer, QUESTION, Sampling(temperature=0)) == "ab"


def test_a_reply_stops_at_its_limit(tokenizer: Tokenizer) -> None:
    model = chained(tokenizer, ["a", "b", "c", TURN_END])
    assert reply(model, tokenizer, QUESTION, Sampling(max_new_tokens=2, temperature=0)) == "ab"


def test_the_same_seed_gives_the_same_reply(tokenizer: Tokenizer, model: Transformer) -> None:
    def sampled(seed: int) -> str:
        return reply(model, tokenizer, QUESTION, Sampling(max_new_tokens=8, temperature=1.5, top_p=1.0, seed=seed))

    replies = [sampled(seed) for seed in range(4)]
    torch.manual_seed(77)
    assert [sampled(seed) for seed in range(4)] == replies
    assert len(set(replies)) > 1


def test_a_tiny_nucleus_is_greedy(tokenizer: Tokenizer, model: Transformer) -> None:
    greedy = reply(model, tokenizer, QUESTION, Sampling(max_new_tokens=8, temperature=0))
    assert reply(model, tokenizer, QUESTION, Sampling(max_new_tokens=8, temperature=1.5, top_p=1e-6, seed=3)) == greedy


def test_the_whole_conversation_is_read(tokenizer: Tokenizer, model: Transformer) -> None:
    replies = {
        reply(
            model,
            tokenizer,
            [("user", first), ("assistant", "b"), ("user", "c")],
            Sampling(max_new_tokens=8, temperature=0),
        )
        for first in ("the", "cat")
    }
    assert len(replies) == 2


def test_a_prompt_longer_than_the_context_loses_its_start(tokenizer: Tokenizer, model: Transformer) -> None:
    """Of a context of 64 tokens, 8 are for the reply and 56 for the end of the prompt."""
    question = [("user", "the assistant asked the user about the system " * 12)]
    prompt = render_prompt(tokenizer, question)
    expected = greedy(tokenizer, model, prompt[-56:])
    assert expected != greedy(tokenizer, model, prompt), "the start should matter, or the test shows nothing"
    assert reply(model, tokenizer, question, Sampling(max_new_tokens=8, temperature=0)) == expected


@pytest.mark.parametrize("training", [True, False])
def test_replying_leaves_the_mode_of_the_model(tokenizer: Tokenizer, model: Transformer, training: bool) -> None:
    model.train(training)
    reply(model, tokenizer, QUESTION, Sampling(max_new_tokens=1))
    assert model.training is training


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return torch.randint(3, 340, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@settings(max_examples=20)
@given(prompts_of_a_batch, ways_to_sample, st.integers(0, 10**9))
def test_batches_with_a_cache_give_what_each_prompt_gives_alone_without(
    model: Transformer, prompts: list[list[int]], way: dict[str, Any], seed: int
) -> None:
    seeds = [seed + row for row in range(len(prompts))]
    unstopped = generate(model, prompts, Sampling(**way), seeds)
    assert unstopped == [
        slow_generate(model, prompt, **way, seed=own) for prompt, own in zip(prompts, seeds, strict=True)
    ]
    stops = tuple({new[len(new) // 2] for new in unstopped[:2]})
    stopped = generate(model, prompts, Sampling(**way, stop_ids=stops), seeds)
    ends = [next((n for n, token in enumerate(new, start=1) if token in stops), len(new)) for new in unstopped]
    assert stopped == [new[:end] for new, end in zip(unstopped, ends, strict=True)]


def test_batch_composition_changes_no_row(model: Transformer) -> None:
    """More rows than products for few rows take, lengths from 1 to 40, sampled widely."""
    prompts = [prompt_of(1 + row, seed=row) for row in range(40)]
    way = Sampling(max_new_tokens=6, temperature=1.0, top_p=0.99, repetition_penalty=1.2)
    together = generate(model, prompts, way, seeds=range(40))
    for order in (range(0, 40, 13), range(39, -1, -7)):
        assert generate(model, [prompts[row] for row in order], way, list(order)) == [together[row] for row in order]


def test_a_row_without_a_seed_of_its_own_has_that_of_the_settings(model: Transformer) -> None:
    way, prompt = {"max_new_tokens": 8, "temperature": 2.0, "top_p": 1.0}, prompt_of(5)
    own = generate(model, [prompt] * 3, Sampling(**way), seeds=[4, 4, 5])
    assert own[0] == own[1] != own[2]
    assert generate(model, [prompt] * 2, Sampling(**way, seed=4)) == own[:2]
    fewer = Sampling(**{**way, "max_new_tokens": 5})
    assert generate(model, [prompt], fewer, seeds=[5]) == [own[2][:5]]


def test_rows_stop_by_themselves_and_show_what_stopped_them(tokenizer: Tokenizer) -> None:
    config = tiny_config(vocab_size=tokenizer.get_vocab_size(), num_hidden_layers=1)
    model = chain_model(config, [11, 12, 13, 14, 15, 16, 17])
    way = Sampling(max_new_tokens=4, temperature=0, stop_ids=(14, 17))
    prompts = [[11], [20, 15], [13], [11, 14]]
    assert generate(model, prompts, way) == [[12, 13, 14], [16, 17], [14], [15, 16, 17]]
    steps = list(stream(model, prompts, way))
    assert steps == [{0: 12, 1: 16, 2: 14, 3: 15}, {0: 13, 1: 17, 3: 16}, {0: 14, 3: 17}]


def test_a_stream_gives_what_generate_gives_a_step_at_a_time(model: Transformer) -> None:
    prompts = [prompt_of(length, seed=length) for length in (3, 9, 1)]
    way = Sampling(max_new_tokens=7, temperature=1.0, top_p=0.9, stop_ids=tuple(range(3, 120)))
    new: list[list[int]] = [[], [], []]
    running = stream(model, prompts, way, seeds=[1, 2, 3])
    for number in itertools.count():
        step = next(running, None)
        if step is None:
            break
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        assert set(step) == {row for row in range(3) if not (number and new[row][-1] in way.stop_ids)}
        for row, token in step.items():
            new[row].append(token)
    assert new == generate(model, prompts, way, seeds=[1, 2, 3])
    assert len({len(row) for row in new}) > 1, "rows should end at different steps, or the test shows little"


def test_a_model_can_be_trained_after_it_has_generated() -> None:
    model = Transformer(tiny_config(), seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generate(model, [[5, 6], [7]], Sampling(max_new_tokens=3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model(torch.tensor([[5, 6, 7]])).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("new", "length"), [(8, 56), (8, 57), (1, 63), (1, 64), (63, 1), (63, 30), (20, 200)])
def test_prompt_and_new_tokens_share_the_window(model: Transformer, new: int, length: int) -> None:
    prompt = prompt_of(length, seed=length)
    way = Sampling(max_new_tokens=new, temperature=0)
    (actual,) = generate(model, [prompt], way)
    assert len(actual) == new
    assert actual == slow_generate(model, prompt, max_new_tokens=new)
    assert generate(model, [[4, 5, 6], prompt], way)[1] == actual
    if length > 64 - new:
        assert actual == generate(model, [prompt[new - 64 :]], way)[0]


def test_what_cannot_be_done_raises_at_once(model: Transformer) -> None:
    with pytest.raises(ValueError, match=r"max_new_tokens \(64\) must be below max_position_embeddings \(64\)"):
        stream(model, [[3]], Sampling(max_new_tokens=64))
    with pytest.raises(ValueError, match="prompt 1 of 2 has no tokens"):
        stream(model, [[3], []], Sampling())
    size = model.config.vocab_size
    for beyond in (size, -1):
        with pytest.raises(ValueError, match=rf"prompt 1 of 2 has the id {beyond}, and the vocabulary has {size}"):
            stream(model, [[3], [4, beyond]], Sampling())
    with pytest.raises(ValueError, match="3 seeds for 2 prompts"):
        stream(model, [[3], [4]], Sampling(), seeds=[1, 2, 3])
    assert generate(model, [], Sampling()) == []


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("max_new_tokens", [0, -1]),
        ("temperature", [-0.1, float("inf"), float("nan")]),
        ("top_p", [0.0, 1.1, float("nan")]),
        ("repetition_penalty", [0.0, -1.0, float("inf"), float("nan")]),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, values: list[float]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=setting):
            Sampling(**{setting: value})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_diverged_model_says_so(temperature: float, broken: float) -> None:
    model = silenced(Transformer(tiny_config(num_hidden_layers=1)))
    with torch.no_grad():
        model.embed_tokens.weight.fill_(broken)
    with pytest.raises(ValueError, match="diverged"):
        generate(model, [[5]], Sampling(temperature=temperature))


def test_transformers_gives_the_same_greedy_tokens(tokenizer: Tokenizer, model: Transformer, tmp_path: Path) -> None:
    export_folder(model, tokenizer, tmp_path)
    published = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    prompts = [prompt_of(length, seed=length) for length in (4, 17, 1, 30)]
    for penalty in (1.0, 1.7):
        way = Sampling(max_new_tokens=24, temperature=0, repetition_penalty=penalty, stop_ids=(2, 0))
        for prompt, actual in zip(prompts, generate(model, prompts, way), strict=True):
            ids = torch.tensor([prompt])
            theirs = published.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, temperature=None,
                top_p=None, repetition_penalty=penalty,
            )  # fmt: skip
            assert actual == theirs[0, len(prompt) :].tolist()


@given(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=8),
    st.floats(0.3, 3),
    st.floats(0.01, 1),
    st.lists(st.floats(0, 0.999), min_size=1, max_size=5),
)
@example([0.0] * 8, 1.0, 0.5, [0.0, 0.3, 0.999])
@example([9.0, -200.0, 9.0], 1e-300, 0.9, [0.1, 0.9])
def test_samples_come_from_the_smallest_set_that_holds_top_p(
    scores: list[float], temperature: float, top_p: float, numbers: list[float]
) -> None:
    logits_BV = torch.tensor([scores] * len(numbers))
    probability = ((logits_BV[0] - max(scores)).double() / temperature).softmax(dim=0).tolist()
    for token in sample(logits_BV, temperature, top_p, torch.tensor(numbers, dtype=torch.float64)).tolist():
        likelier = sum(p for p in probability if p > probability[token] * (1 + 1e-6))
        assert likelier < top_p + 1e-6
        assert probability[token] > 0


@given(st.integers(0, 9), st.sampled_from([0.1, 0.9, 1.0]), st.sampled_from([0.02, 1.0, 50.0]))
def test_narrow_and_wide_nuclei_are_drawn_from_alike(seed: int, top_p: float, temperature: float) -> None:
    """A vocabulary several times the candidates looked at first; one batch has rows of both sorts."""
    generator = torch.Generator().manual_seed(seed)
    logits_BV = torch.randn(6, 5 * CANDIDATES, generator=generator) * torch.tensor([0.1, 1, 3, 9, 30, 0])[:, None]
    logits_BV += 1e-3 * torch.arange(5 * CANDIDATES)  # no two alike
    numbers = torch.rand(6, generator=generator, dtype=torch.float64)
    actual = sample(logits_BV, temperature, top_p, numbers).tolist()
    rows = zip(logits_BV.tolist(), numbers.tolist(), strict=True)
    assert actual == [chosen(scores, temperature, top_p, number) for scores, number in rows]


def test_sampling_follows_the_probabilities() -> None:
    logits_V = torch.tensor([0.7, 0.2, 0.1]).log()
    numbers = torch.rand(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def shares(temperature: float, top_p: float) -> list[float]:
        tokens = sample(logits_V.expand(2000, -1), temperature, top_p, numbers)
        return [float((tokens == token).double().mean()) for token in range(3)]

    assert shares(1.0, 1.0) == pytest.approx([0.7, 0.2, 0.1], abs=0.03)
    assert shares(0.5, 1.0) == pytest.approx([0.49 / 0.54, 0.04 / 0.54, 0.01 / 0.54], abs=0.03)
    assert shares(1.0, 0.85) == pytest.approx([0.7 / 0.9, 0.2 / 0.9, 0], abs=0.03)
    assert shares(0, 0.5) == [1, 0, 0]


@given(st.tuples(*[st.floats(-9, 9, width=32)] * 6), st.lists(st.integers(0, 5), max_size=9), st.floats(0.3, 3))
def test_a_seen_id_is_penalised_once(scores: tuple[float, ...], ids: list[int], penalty: float) -> None:
    seen_BV = torch.tensor([[token in ids for token in range(6)], [False] * 6])
    actual = penalise(torch.tensor([scores, scores]), seen_BV, penalty)
    torch.testing.assert_close(actual[0], torch.tensor(penalised(scores, ids, penalty)))
    assert tuple(actual[1].tolist()) == scores


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    max_new_tokens=st.integers(1, 12),
    temperature=st.sampled_from([0.0, 0.7, 3.0]),
    say=st.text(max_size=6),
)
def test_the_pieces_of_a_reply_are_the_reply(
    tokenizer: Tokenizer, model: Transformer, seed: int, max_new_tokens: int, temperature: float, say: str
) -> None:
    """Hot models write bytes that are no characters: those that are cut off are told at the end, never taken back."""
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=1.0, seed=seed)
    pieces = list(reply_pieces(model, tokenizer, [("user", say)], sampling))
    assert "".join(pieces) == reply(model, tokenizer, [("user", say)], sampling)
    assert all(pieces)


def test_a_character_of_several_tokens_is_told_when_it_is_whole(tokenizer: Tokenizer) -> None:
    byte_tokens = [tokenizer.id_to_token(number) for number in tokenizer.encode("☃", add_special_tokens=False).ids]
    assert len(byte_tokens) == 3
    model = chained(tokenizer, ["a", *byte_tokens, "b", TURN_END])
    assert list(reply_pieces(model, tokenizer, QUESTION, Sampling(temperature=0))) == ["a", "☃", "b"]
