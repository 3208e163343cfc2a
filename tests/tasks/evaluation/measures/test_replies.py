"""Replies: which prompts are asked, and what is counted of the answers."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.network.transformer import Transformer
from model.tokens.tokenizer import END_OF_TEXT, TURN_END, TURN_START, special_id
from tasks.evaluation.measures.metrics import combined_metrics
from tasks.evaluation.measures.replies import NGRAM, Prompt, answer, as_content, counted, prompts_of
from tasks.recipes.stage_configs import EvaluateConfig
from tests.model.tiny import chain_model, tiny_config
from tests.reference.measures import repeated_runs
from tests.tasks.rows import Exchange, chat_rows, small_tokenizer

TOKENIZER = small_tokenizer()
STOPS = (special_id(TOKENIZER, TURN_END), special_id(TOKENIZER, END_OF_TEXT))
PROMPT = Prompt(turns=(("user", "hello"),), shown=True, seed=0)
CONFIG = EvaluateConfig(prompts=("Hi", "You?"), held_out_prompts=3, max_new_tokens=8)
TALKS: list[list[Exchange]] = [[(f"question {n}", "answer"), ("and then", "more")] for n in range(6)]


def ids_of(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False).ids)


def test_held_out_beginnings_are_asked_beside_the_recipe_s_prompts() -> None:
    prompts = prompts_of(CONFIG, chat_rows(TALKS), TOKENIZER, 40)
    assert [prompt.text for prompt in prompts[:2]] == ["Hi", "You?"]
    assert [prompt.shown for prompt in prompts] == [True, True, False, False, False]
    assert {prompt.text for prompt in prompts[2:]} < {f"question {n}" for n in range(6)}
    assert len({prompt.seed for prompt in prompts}) == 5
    more = prompts_of(EvaluateConfig(prompts=("Hi", "You?"), held_out_prompts=4), chat_rows(TALKS[::-1]), TOKENIZER, 40)
    renamed = {prompt.text for prompt in more}
    assert len(more) == 6 and len(renamed) == 6
    other = prompts_of(
        EvaluateConfig(prompts=("Hi", "You?"), held_out_prompts=3, seed=2), chat_rows(TALKS), TOKENIZER, 40
    )
    assert {p.text for p in other} != {p.text for p in prompts}


def test_prompts_that_do_not_fit_or_are_not_there_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nightschool")
    long = [[("hello world " * 30, "answer")], *TALKS[:1], *TALKS[:1]]
    prompts = prompts_of(CONFIG, chat_rows(long), TOKENIZER, 40)
    assert [prompt.text for prompt in prompts] == ["Hi", "You?", "question 0"]
    assert "1 held-out prompt longer than 40 tokens left out" in caplog.text
    assert "5 prompts asked for, 3 there" in caplog.text


@given(st.lists(st.integers(3, 6), max_size=30), st.booleans())
def test_runs_that_stood_there_before_are_those_of_the_reference(ids: list[int], ended: bool) -> None:
    reply = counted(TOKENIZER, PROMPT, [*ids, *([STOPS[0]] if ended else [])], STOPS)
    assert (reply.ngrams, reply.repeated_ngrams) == repeated_runs(ids, NGRAM)
    assert reply.ended == ended


@pytest.mark.parametrize(
    ("ids", "ended", "valid"),
    [
        ([*ids_of("hello"), STOPS[0]], True, True),
        (ids_of("hello"), False, True),
        ([*ids_of("hello"), STOPS[1]], True, False),
        ([STOPS[0]], True, False),
        ([*ids_of("  \n"), STOPS[0]], True, False),
        ([*ids_of("hello"), special_id(TOKENIZER, TURN_START), *ids_of("user\n"), STOPS[0]], True, False),
        ([*ids_of(f"hello {TURN_START}user"), STOPS[0]], True, False),
        ([*ids_of("ok 漢")[:-1], STOPS[0]], True, False),
        (ids_of("ok 漢")[:-1], False, True),
        ([*ids_of("漢")[:-1], *ids_of(" ok")], False, False),
        ([], False, False),
    ],
)
def test_a_reply_is_valid_if_it_is_a_turn_as_the_template_has_it(ids: list[int], ended: bool, valid: bool) -> None:
    reply = counted(TOKENIZER, PROMPT, ids, STOPS)
    assert (reply.ended, reply.valid) == (ended, valid)


def test_answers_come_in_the_order_of_the_prompts_whatever_their_length() -> None:
    """A model that always goes on with the same chain after the header of the assistant's turn."""
    newline = ids_of("\n")[-1]
    chain = [newline, ids_of("h")[0], ids_of("i")[0], STOPS[0]]
    model = chain_model(tiny_config(hidden_size=64, max_position_embeddings=256), chain)
    talks: list[list[Exchange]] = [[("hello " * (7 - n) + str(n), "x")] for n in range(4)]
    config = EvaluateConfig(prompts=("Hi",), held_out_prompts=4, max_new_tokens=8, temperature=0)
    prompts = prompts_of(config, chat_rows(talks), TOKENIZER, 200)
    replies = answer(model, TOKENIZER, prompts, config)
    assert [reply.prompt for reply in replies] == [prompt.text for prompt in prompts]
    assert {(reply.reply, reply.ended, reply.valid) for reply in replies} == {("hi", True, True)}


def test_the_shares_are_over_replies_and_over_runs() -> None:
    model = Transformer(tiny_config(max_position_embeddings=256))
    config = EvaluateConfig(held_out_prompts=4, max_new_tokens=12)
    prompts = prompts_of(config, chat_rows(TALKS), TOKENIZER, 100)
    replies = as_content(answer(model, TOKENIZER, prompts, config))
    columns = {name: [r[name] for r in replies] for name in ("ended", "valid", "ngrams", "repeated_ngrams")}
    found = combined_metrics(columns)
    assert found["self_ending_share"] == sum(columns["ended"]) / 7
    assert found["format_valid_share"] == sum(columns["valid"]) / 7
    assert found["repetition_share"] == sum(columns["repeated_ngrams"]) / sum(columns["ngrams"])
    assert "repetition_share" not in combined_metrics(columns | {"ngrams": [0] * 7, "repeated_ngrams": [0] * 7})
