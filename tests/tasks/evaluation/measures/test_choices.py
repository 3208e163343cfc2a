"""Questions made of held-out text, and their scores as the reference has them, one id at a time."""

from __future__ import annotations

import logging

import polars as pl
import pytest
import torch

from model.network.transformer import Transformer
from model.tokens.chat import render_prompt
from tasks.evaluation.measures.choices import OPTION_CHARACTERS, OPTIONS, Question, ask, drawn, questions_of
from tasks.evaluation.measures.metrics import combined_metrics
from tests.model.tiny import tiny_config
from tests.reference.measures import continuation_nats
from tests.tasks.rows import Exchange, chat_rows, small_tokenizer, text_rows

TOKENIZER = small_tokenizer()
TEXTS = [f"text {n} says hello to the world and " + f"goes on with word {n * 7919} " * (3 + n) for n in range(9)]
TALKS: list[list[Exchange]] = [[(f"question {n}", f"hello world, this is text number {n * 7919}")] for n in range(6)]


def rows_of(table: pl.DataFrame, domain: str = "en") -> pl.DataFrame:
    return table.with_columns(domain=pl.lit(domain)).select("row_id", "domain", table.columns[-1])


TEXT_ROWS, CHAT_ROWS = rows_of(text_rows(TEXTS)), rows_of(chat_rows(TALKS), "chat")


@pytest.mark.parametrize(("kind", "rows"), [("pretrain", TEXT_ROWS), ("chat", CHAT_ROWS)])
def test_each_row_is_a_question_with_its_own_continuation_first(kind: str, rows: pl.DataFrame) -> None:
    questions = questions_of(rows, kind, 1)
    assert [question.row_id for question in questions] == rows["row_id"].to_list()
    assert all(min(map(len, question.options)) > 15 for question in questions)
    contents = dict(rows.select("row_id", rows.columns[-1]).iter_rows())
    said = {row_id: c if kind == "pretrain" else c[1]["content"] for row_id, c in contents.items()}
    for question in questions:
        true, *wrong = question.options
        assert len(set(question.options)) == OPTIONS and len({len(option) for option in question.options}) == 1
        assert len(true) <= OPTION_CHARACTERS
        own = said.pop(question.row_id)
        assert (question.context + true in own) if isinstance(question.context, str) else own.startswith(true)
        assert all(any(option in other for other in said.values()) for option in wrong), "from elsewhere"
        said[question.row_id] = own


def test_questions_do_not_depend_on_the_order_of_the_rows_and_do_on_the_seed() -> None:
    one, other = questions_of(TEXT_ROWS, "pretrain", 1), questions_of(TEXT_ROWS.reverse(), "pretrain", 1)
    assert drawn(one, 5, 1) == drawn(other, 5, 1)
    assert drawn(one, 5, 1) != drawn(questions_of(TEXT_ROWS, "pretrain", 2), 5, 2)


def test_what_makes_no_question_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nightschool")
    few = rows_of(text_rows([*TEXTS[:3], "short"]))
    assert questions_of(few, "pretrain", 1) == []
    assert "3 continuations of pretrain and en, where a question needs 4" in caplog.text
    assert len(drawn(questions_of(TEXT_ROWS, "pretrain", 1), 100, 1)) == len(TEXTS)
    assert f"100 questions asked for, held-out text makes {len(TEXTS)}" in caplog.text
    model = Transformer(tiny_config())
    assert ask(model, TOKENIZER, questions_of(TEXT_ROWS, "pretrain", 1), 8, "fp32").is_empty()
    assert f"{len(TEXTS)} questions too long for 8 tokens" in caplog.text


@pytest.mark.parametrize("max_tokens", [64, 128])
def test_the_nats_are_those_of_one_id_after_the_other(max_tokens: int) -> None:
    model = Transformer(tiny_config(max_position_embeddings=256), seed=3).eval()
    questions = [questions_of(TEXT_ROWS, "pretrain", 1)[0], questions_of(CHAT_ROWS, "chat", 1)[0]]
    found = ask(model, TOKENIZER, questions, max_tokens, "fp32")
    for question, nats, alone in zip(questions, found["nats"], found["nats_alone"], strict=True):
        end = [TOKENIZER.token_to_id("<|endoftext|>")]
        if isinstance(question.context, str):
            before, nothing = [*end, *TOKENIZER.encode(question.context).ids], end
        else:
            before, nothing = (render_prompt(TOKENIZER, list(turns)) for turns in (question.context, ()))
        for number, option in list(enumerate(question.options))[::3]:
            ids = TOKENIZER.encode(option).ids
            room = max_tokens + 1 - len(ids)
            assert nats[number] == pytest.approx(continuation_nats(model, before[-room:], ids), rel=1e-4)
            assert alone[number] == pytest.approx(continuation_nats(model, nothing, ids), rel=1e-4)


def test_the_option_that_the_beginning_makes_likelier_by_most_counts() -> None:
    found = combined_metrics({
        "option_nats": [[5, 4, 9, 9], [5, 4, 9, 9], [8, 8, 9, 9], [1, 1, 1, 1]],
        "option_nats_alone": [[9, 4, 9, 9], [5, 6, 9, 9], [9, 9, 9, 9], [1, 1, 1, 1]],
    })  # fmt: skip
    assert found == {"choice_accuracy": pytest.approx((1 + 0 + 1 / 2 + 1 / 4) / 4), "choice_chance": 0.25}


def test_options_that_are_alike_make_no_question_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nightschool")
    alike = rows_of(chat_rows([[(f"question {n}", "hello world, this is " + "x" * n)] for n in range(5)]), "chat")
    assert questions_of(alike, "chat", 1) == []
    assert "5 rows of chat and chat go on as others do" in caplog.text


def test_a_model_that_knows_the_text_finds_it_and_an_untrained_one_does_not_more_than_by_chance() -> None:
    """A few steps on the questions' own text."""
    model = Transformer(tiny_config(max_position_embeddings=256), seed=1)
    texts = [f"number {n}: " + f"{n} " * 16 for n in range(100, 116)]
    questions = questions_of(rows_of(text_rows(texts)), "pretrain", 1)

    def accuracy() -> float:
        found = ask(model, TOKENIZER, questions, 64, "fp32")
        columns = {"option_nats": found["nats"].to_list(), "option_nats_alone": found["nats_alone"].to_list()}
        return combined_metrics(columns)["choice_accuracy"]

    assert accuracy() <= 0.5
    end = TOKENIZER.token_to_id("<|endoftext|>")
    ids = torch.tensor([[end, *TOKENIZER.encode(text).ids][:60] for text in texts])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        logits = model(ids[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
    assert accuracy() >= 0.8


def test_a_question_keeps_what_it_is_asked_of() -> None:
    question = questions_of(CHAT_ROWS, "chat", 1)[2]
    assert question == Question("chat", "chat", "chat-2", (("user", "question 2"),), question.options)
