"""Answers that are context: read, and never a target."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.rows.keys import row_ids
from data.rows.parts import named_by, texts_of
from data.tokens.encode import Encoder
from model.tokens.packing import IGNORED
from model.tokens.tokenizer import train_tokenizer
from schemas.rows import TURNS

answers = st.lists(st.tuples(st.sampled_from(["the cat", " sat", "on 中"]), st.booleans()), min_size=1, max_size=4)


def conversation(said: list[tuple[str, bool]]) -> list[dict[str, object]]:
    return [
        turn
        for number, (answer, learned) in enumerate(said)
        for turn in (
            {"role": "user", "content": f"q{number}", "learned": False},
            {"role": "assistant", "content": answer, "learned": learned},
        )
    ]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.of(train_tokenizer(["the cat sat on the mat", "user assistant"] * 20, 300))


def learned_texts(encoder: Encoder, labels: np.ndarray) -> list[str]:
    text = encoder.tokenizer.decode(labels[labels != IGNORED].tolist(), skip_special_tokens=False)
    return text.split("<|im_end|>")[:-1]


@given(said=answers)
def test_an_answer_that_is_not_learned_is_read_and_no_target(encoder: Encoder, said: list[tuple[str, bool]]) -> None:
    series = pl.Series([conversation(said), conversation([(answer, True) for answer, _ in said])], dtype=TURNS)
    found, all_answers = encoder.conversations(series, 300)
    learned = [answer for answer, is_learned in said if is_learned]
    mine = np.repeat(found.owners == 0, found.lengths)
    assert all_answers.owner.tolist() == [0] * len(learned) + [1] * len(said)
    assert len(all_answers.longer_than(300).owner) == 0
    assert learned_texts(encoder, found.labels[mine]) == learned
    assert learned_texts(encoder, found.labels[~mine]) == [answer for answer, _ in said]
    if learned:
        assert found.inputs[mine].tolist() == found.inputs[~mine].tolist()


@given(said=answers)
def test_windows_learn_no_other_answers(encoder: Encoder, said: list[tuple[str, bool]]) -> None:
    found, _ = encoder.conversations(pl.Series([conversation(said)], dtype=TURNS), 24)
    learned = [answer for answer, is_learned in said if is_learned]
    texts = learned_texts(encoder, found.labels)
    assert len(texts) <= len(learned) and set(texts) <= set(learned)


def test_rows_that_differ_in_what_is_learned_have_names_of_their_own() -> None:
    rows = [conversation([("a", one), ("b", two)]) for one in (True, False) for two in (True, False)]
    unsaid = [{key: turn[key] for key in ("role", "content")} for turn in rows[0]]
    series = pl.Series([*rows, unsaid], dtype=TURNS)
    names = row_ids(named_by(series))
    assert len(np.unique(names[:4])) == 4
    assert names[0] == names[4] == row_ids(texts_of(series))[0], "the plain text of the turns names the row"
    assert named_by(pl.Series(["a"])).to_list() == ["a"]
