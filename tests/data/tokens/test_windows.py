"""Windows of conversations, through the encoder that stages use."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data.tokens.encode import Encoder
from model.tokens.chat import Turn, render_turn
from model.tokens.packing import IGNORED
from model.tokens.tokenizer import train_tokenizer
from schemas.rows import TURNS
from tests.model.tiny import TEXTS
from tests.reference.turns import IMITATION, conversations, marked_content, words
from tests.reference.windows import Segment

START, END = 1, 2
ROOMY = 100_000


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 20, vocab_size=340)


@cache
def encoder_of(tokenizer: Tokenizer) -> Encoder:
    return Encoder.of(tokenizer)


def windows_of(tokenizer: Tokenizer, turns: list[Turn], max_tokens: int) -> tuple[list[Segment], int]:
    """Segments of one conversation, and how many answers are in none."""
    series = pl.Series([[{"role": role, "content": content} for role, content in turns]], dtype=TURNS)
    found, answers = encoder_of(tokenizer).conversations(series, max_tokens)
    borders = found.offsets[1:-1]
    pairs = zip(np.split(found.inputs, borders), np.split(found.labels, borders), strict=True)
    return [Segment(inputs, labels) for inputs, labels in pairs if len(inputs)], len(
        answers.longer_than(max_tokens).owner
    )


def answers_of(turns: list[Turn]) -> list[str]:
    return [content for role, content in turns if role == "assistant"]


def learned(tokenizer: Tokenizer, segment: Segment) -> list[str]:
    """Texts between a segment's end-of-turn targets; fails if targets do not end with one."""
    texts, ids = [], []
    for label in segment.labels[segment.labels != IGNORED].tolist():
        if label == END:
            texts.append(tokenizer.decode(ids, skip_special_tokens=False))
            ids = []
        else:
            ids.append(label)
    assert not ids, "an answer without its end"
    return texts


@settings(max_examples=100)
@given(turns=conversations(marked_content))
@example(turns=[("user", IMITATION), ("assistant", "no")])
def test_only_answers_are_learned_whatever_users_type(tokenizer: Tokenizer, turns: list[Turn]) -> None:
    segments, given_up = windows_of(tokenizer, turns, ROOMY)
    assert given_up == 0
    (segment,) = segments
    assert learned(tokenizer, segment) == answers_of(turns)
    special = [int(token) for token in segment.inputs if token <= END]
    assert special == [START, END] * len(turns)


@settings(max_examples=100)
@given(turns=conversations(marked_content))
def test_each_target_is_the_next_token(tokenizer: Tokenizer, turns: list[Turn]) -> None:
    (segment,), _ = windows_of(tokenizer, turns, ROOMY)
    ids = [token for turn in turns for token in render_turn(tokenizer, turn)[0]]
    assert segment.inputs.tolist() == ids[:-1]
    assert all(label in (IGNORED, after) for label, after in zip(segment.labels.tolist(), ids[1:], strict=True))


def exchange_sizes(tokenizer: Tokenizer, turns: list[Turn]) -> tuple[int, list[int]]:
    """Ids of the system turn, and of each question with its answer."""
    sizes = [len(render_turn(tokenizer, turn)[0]) for turn in turns]
    system = sizes[0] if turns[0][0] == "system" else 0
    rest = sizes[1:] if system else sizes
    return system, [sum(rest[i : i + 2]) for i in range(0, len(rest), 2)]


def fewest_windows(sizes: list[int], budget: int) -> int:
    """How many stretches of at most `budget` ids the exchanges need; filling from the start is optimal."""
    windows, used = 0, budget + 1
    for size in sizes:
        if used + size > budget:
            windows, used = windows + 1, 0
        used += size
    return windows


@settings(max_examples=100)
@given(turns=conversations(words, max_exchanges=6), max_tokens=st.integers(20, 150))
def test_long_conversations_are_cut_between_exchanges(tokenizer: Tokenizer, turns: list[Turn], max_tokens: int) -> None:
    """Every answer is learned once, after as much of what was said before it as there is room for."""
    system, exchanges = exchange_sizes(tokenizer, turns)
    assume(system + max(exchanges) <= max_tokens + 1)
    segments, given_up = windows_of(tokenizer, turns, max_tokens)
    assert given_up == 0
    assert [answer for segment in segments for answer in learned(tokenizer, segment)] == answers_of(turns)
    assert len(segments) <= fewest_windows(exchanges, max_tokens + 1 - system)

    ids = [token for turn in turns for token in render_turn(tokenizer, turn)[0]]
    for number, segment in enumerate(segments):
        assert len(segment) == max_tokens if number else len(segment) <= max_tokens
        assert segment.inputs[:system].tolist() == ids[:system]
        said = segment.inputs[system:].tolist()
        assert any(ids[end - len(said) : end] == said for end in range(system + len(said), len(ids) + 1))


@settings(max_examples=100)
@given(turns=conversations(words, max_exchanges=5), max_tokens=st.integers(4, 40))
def test_no_answer_is_cut_or_repeated_however_short_the_rows(
    tokenizer: Tokenizer, turns: list[Turn], max_tokens: int
) -> None:
    segments, given_up = windows_of(tokenizer, turns, max_tokens)
    assert all(0 < len(segment) <= max_tokens for segment in segments)
    remaining = iter(answers_of(turns))
    found = [answer for segment in segments for answer in learned(tokenizer, segment)]
    assert all(answer in remaining for answer in found), "answers come whole and in order"
    assert len(found) + given_up == len(answers_of(turns))


def test_a_long_question_loses_its_start_and_keeps_its_answer(tokenizer: Tokenizer) -> None:
    turns = [("user", "first words " * 20 + "last words"), ("assistant", "short")]
    (segment,), given_up = windows_of(tokenizer, turns, max_tokens=30)
    assert given_up == 0
    assert len(segment) == 30
    text = tokenizer.decode(segment.inputs.tolist(), skip_special_tokens=False)
    assert text.endswith("last words<|im_end|>\n<|im_start|>assistant\nshort<|im_end|>")
    assert learned(tokenizer, segment) == ["short"]


def test_an_answer_longer_than_a_row_is_given_up_alone(tokenizer: Tokenizer) -> None:
    answers = ["one", "x" * 60, "two"]
    turns = [turn for answer in answers for turn in (("user", "question"), ("assistant", answer))]
    segments, given_up = windows_of(tokenizer, turns, max_tokens=40)
    assert given_up == 1
    assert [learned(tokenizer, segment) for segment in segments] == [["one"], ["two"]]


@pytest.mark.parametrize("max_tokens", range(1, 40))
def test_an_answer_is_learned_from_its_first_token_or_not_at_all(tokenizer: Tokenizer, max_tokens: int) -> None:
    turns = [("user", "a question"), ("assistant", "an answer")]
    segments, given_up = windows_of(tokenizer, turns, max_tokens)
    ids, targets = render_turn(tokenizer, turns[1])
    assert given_up == (max_tokens + 1 <= len(ids[targets.index(True) :]))
    assert [learned(tokenizer, segment) for segment in segments] == [["an answer"]] * (1 - given_up)


def test_of_two_answers_in_a_row_the_older_is_cut_first_and_never_learned_in_part(tokenizer: Tokenizer) -> None:
    turns = [("user", "q"), ("assistant", "x" * 60), ("assistant", "short")]
    outcomes = []
    for max_tokens in range(1, 100):
        segments, given_up = windows_of(tokenizer, turns, max_tokens)
        assert all(len(segment) <= max_tokens for segment in segments)
        outcome = ([learned(tokenizer, segment) for segment in segments], given_up)
        if outcome not in outcomes[-1:]:
            outcomes.append(outcome)
    assert outcomes == [([], 2), ([["short"]], 1), ([["x" * 60, "short"]], 0)]


def test_a_window_that_just_fits_is_kept_whole(tokenizer: Tokenizer) -> None:
    turns = [("user", "a question"), ("assistant", "an answer"), ("user", "more"), ("assistant", "again")]
    slots = sum(len(render_turn(tokenizer, turn)[0]) for turn in turns) - 1
    assert [len(segment) for segment in windows_of(tokenizer, turns, slots)[0]] == [slots]
    assert len(windows_of(tokenizer, turns, slots - 1)[0]) == 2


@pytest.mark.parametrize("turns", [[], [("user", "u")], [("system", "s"), ("user", "u")], [("system", "s")]])
def test_a_conversation_without_answers_has_no_segment(tokenizer: Tokenizer, turns: list[Turn]) -> None:
    assert windows_of(tokenizer, turns, 50) == ([], 0)


replies = words.filter(lambda text: text[:1].strip())  # what begins with white space merges with its header
exchanges = st.lists(st.tuples(words, st.lists(replies, min_size=1, max_size=3)), min_size=1, max_size=4)


@given(said=exchanges, system=st.booleans())
def test_an_answer_needs_exactly_the_row_it_says(
    tokenizer: Tokenizer, said: list[tuple[str, list[str]]], system: bool
) -> None:
    """Several answers to one question included, as tool calls make them: a slot less, and it is in no segment."""
    turns: list[Turn] = [("system", "be brief")] * system
    for question, replies in said:
        turns += [("user", question), *(("assistant", reply) for reply in replies)]
    series = pl.Series([[{"role": role, "content": content} for role, content in turns]], dtype=TURNS)
    _, answers = encoder_of(tokenizer).conversations(series, ROOMY)
    texts = answers_of(turns)
    assert answers.number.tolist() == list(range(1, len(texts) + 1))
    assert answers.tokens.tolist() == [sum(render_turn(tokenizer, ("assistant", text))[1]) for text in texts]
    for needed in sorted({length for n in answers.needed.tolist() for length in (n - 1, n)}):
        held = [text for text, n in zip(texts, answers.needed, strict=True) if n <= needed]
        segments, lost = windows_of(tokenizer, turns, needed)
        assert [text for segment in segments for text in learned(tokenizer, segment)] == held
        assert lost == len(texts) - len(held)


def test_a_last_question_that_does_not_fit_is_not_counted(tokenizer: Tokenizer) -> None:
    segments, given_up = windows_of(tokenizer, [("user", "u"), ("assistant", "a"), ("user", "x" * 60)], 50)
    assert ([learned(tokenizer, segment) for segment in segments], given_up) == ([["a"]], 0)


def test_segments_have_as_many_labels_as_inputs(tokenizer: Tokenizer) -> None:
    (segment,), _ = windows_of(tokenizer, [("user", "u"), ("assistant", "a")], 50)
    assert len(segment) == len(segment.inputs) == len(segment.labels)
    assert segment.inputs.dtype == segment.labels.dtype == np.int32
