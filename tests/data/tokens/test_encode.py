"""Ids are those of the tokenizers library, segments those of the chat template, however they were come by."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from data.rows.parts import texts_of
from data.tokens import encode
from data.tokens.encode import Encode, Encoder, best_engine, end_ranks
from model.tokens.chat import Turn
from model.tokens.packing import Segments
from model.tokens.tokenizer import END_OF_TEXT, SPECIAL_TOKENS, TURN_END, TURN_START, train_tokenizer
from schemas.rows import TURNS
from tasks.sources.builtin import MAKERS
from tests.reference.packing import document_slots, slots_of
from tests.reference.windows import render_conversation

quick = settings(max_examples=60)
Conversation = list[Turn]
SAMPLE = {"pretrain-reference": 15, "pretrain-code": 6}
"""Long rows; of other sources some more are looked at."""

BLANKS = ["  ", "\n", "\t\r\n", "\u200b", "\u3000", "\x85", "\ufeff", "\x00", "\x1c"]
WORDS = ["hello", " world", "don't", "。你好，世界", "１２", "é", "e\u0301", "😀\u200d", "\ud7ff", "<think>", "<"]
pieces = st.sampled_from([*BLANKS, *WORDS, "user\n", "assistant\n", *SPECIAL_TOKENS])
spelled = st.lists(pieces, max_size=8).map("".join)
anything = st.one_of(spelled, st.text(st.characters(codec="utf-8"), max_size=30))
roles = st.sampled_from(["system", "user", "assistant"])
proper = st.builds(
    lambda system, exchanges, question: [
        *(("system", content) for content in system),
        *((role, said) for pair in exchanges for role, said in zip(("user", "assistant"), pair, strict=True)),
        *(("user", content) for content in question),
    ],
    st.lists(anything, max_size=1),
    st.lists(st.tuples(anything, anything), max_size=4),
    st.lists(anything, max_size=1),
)
conversations = st.lists(st.one_of(proper, st.lists(st.tuples(roles, anything), max_size=5)), max_size=5)


def real_rows(everything: bool = False) -> dict[str, pl.Series]:
    """Of every source of the built-in corpus some rows, or all."""
    rows = {name: [*islice(make(), None if everything else SAMPLE.get(name, 80))] for name, make in MAKERS.items()}
    return {
        name: pl.Series([row["conversations"] for row in found], dtype=TURNS)
        if name.startswith("chat-")
        else pl.Series([row["text"] for row in found], dtype=pl.String)
        for name, found in rows.items()
    }


@pytest.fixture(scope="module")
def sample() -> dict[str, pl.Series]:
    return real_rows()


@pytest.fixture(scope="module", params=[6_400, 300])
def trained(request: pytest.FixtureRequest, sample: dict[str, pl.Series]) -> Tokenizer:
    return train_tokenizer((text for rows in sample.values() for text in texts_of(rows)), request.param)


@cache
def small(**added: Any) -> Tokenizer:
    """A few merges, and perhaps words that are added as no special tokens."""
    tokenizer = train_tokenizer(["user assistant\nhello world don't <think> 你好 ", "\n\n\n", "\n\ta\n\t"] * 20, 340)
    if added:
        tokenizer.add_tokens([AddedToken(word, special=False, **added) for word in ("<think>", "hello", "你好")])
    return tokenizer


@cache
def encoder_of(tokenizer: Tokenizer) -> Encoder:
    return Encoder.of(tokenizer)


def prefixing() -> Tokenizer:
    """Every text that it encodes gets a blank before it."""
    tokenizer = train_tokenizer(["user assistant\nhello world"] * 20, 300)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def expected_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[int], list[int]]:
    found = [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    return [token for ids in found for token in ids], [0, *accumulate(map(len, found))]


def check_ids(engine: Encode, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    ids, offsets = engine(texts)
    assert (ids.tolist(), offsets.tolist()) == expected_ids(tokenizer, texts)


def check_conversations(encoder: Encoder, given: Sequence[Conversation], max_tokens: int) -> Segments:
    """What the encoder makes of all is what the chat template makes of each."""
    series = pl.Series([[{"role": r, "content": c} for r, c in turns] for turns in given], dtype=TURNS)
    found, answers = encoder.conversations(series, max_tokens)
    slots, owners, lost = [], [], []
    for owner, turns in enumerate(given):
        segments, count = render_conversation(encoder.tokenizer, list(turns), max_tokens)
        slots += [(s.inputs.tolist(), s.labels.tolist()) for s in segments]
        owners += [owner] * len(segments)
        lost.append(count)
    assert slots_of(found) == slots
    assert found.owners.tolist() == owners
    assert np.bincount(answers.longer_than(max_tokens).owner, minlength=len(given)).tolist() == lost
    assert found.labels.dtype == np.int32
    return found


def turns_in(rows: pl.Series) -> list[Conversation]:
    return [[(turn["role"], turn["content"]) for turn in turns] for turns in rows.to_list()]


def check_rows(tokenizer: Tokenizer, rows: dict[str, pl.Series]) -> None:
    encoder = encoder_of(tokenizer)
    for found in rows.values():
        check_ids(encoder.encode, tokenizer, texts_of(found).to_list())
        if found.dtype == TURNS:
            for max_tokens in (64, 256):
                check_conversations(encoder, turns_in(found), max_tokens)


def test_real_text_has_the_ids_of_the_reference(trained: Tokenizer, sample: dict[str, pl.Series]) -> None:
    check_rows(trained, sample)


@pytest.mark.slow
def test_every_row_of_the_corpus_has_the_ids_of_the_reference(trained: Tokenizer) -> None:
    check_rows(trained, real_rows(everything=True))


@quick
@given(st.lists(anything, max_size=6), st.sampled_from([{}, {"normalized": True}, {"rstrip": True}, {"lstrip": True}]))
def test_any_text_has_the_ids_of_the_reference(texts: list[str], added: dict[str, bool]) -> None:
    tokenizer = small(**added)
    check_ids(encoder_of(tokenizer).encode, tokenizer, texts)


@pytest.mark.parametrize("name", ["single_word", "lstrip", "rstrip", "normalized"])
def test_added_words_are_found_where_the_reference_finds_them(name: str) -> None:
    tokenizer = small(**{name: True})
    texts = ["a <think> b", "x<think>y", "  <think>\n", "hello hello", "othello", "<think>hello<think>", "<|im_end|>"]
    check_ids(encoder_of(tokenizer).encode, tokenizer, texts)


def test_no_text_has_a_special_id(trained: Tokenizer) -> None:
    ids, _ = encoder_of(trained).encode([f"a{token} {token}" for token in SPECIAL_TOKENS])
    assert not set(ids.tolist()) & {trained.token_to_id(token) for token in SPECIAL_TOKENS}


def losing_a_token(engine: Encode) -> Encode:
    """Of the probe that is 300 letters long, and of no other text."""

    def encode(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        return engine([text[:-1] if text == "a" * 300 else text for text in texts])

    return encode


def moving_ends(engine: Encode) -> Encode:
    def encode(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        ids, offsets = engine(texts)
        return ids, np.append(offsets[:-2], offsets[-2:] - [1, 0])

    return encode


def refusing(engine: Encode) -> Encode:
    raise RuntimeError("unknown pre-tokenizer")


@pytest.mark.parametrize("spoil", [losing_a_token, moving_ends, refusing])
def test_an_engine_that_differs_is_not_taken(spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = encode.fast_engine
    monkeypatch.setattr(encode, "fast_engine", lambda tokenizer: spoil(fast(tokenizer)))
    check_ids(best_engine(small()), small(), ["a" * 300, "hello", "world"])


def test_an_engine_that_gives_the_same_ids_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    fast = encode.fast_engine(small())
    monkeypatch.setattr(encode, "fast_engine", lambda _: lambda texts: (seen.extend(texts), fast(texts))[1])
    check_ids(best_engine(small()), small(), ["hello world"])
    assert seen[-1] == "hello world"


@quick
@given(st.lists(anything, max_size=6))
def test_documents_are_what_one_by_one_gives(texts: list[str]) -> None:
    segments, end = encoder_of(small()).documents(texts), small().token_to_id(END_OF_TEXT)
    assert slots_of(segments) == [document_slots(expected_ids(small(), [text])[0], end) for text in texts]
    assert segments.owners.tolist() == list(range(len(texts)))


@quick
@given(conversations, st.integers(4, 120))
def test_conversations_are_what_the_chat_template_gives(given: list[Conversation], max_tokens: int) -> None:
    found = check_conversations(encoder_of(small()), given, max_tokens)
    assert small().token_to_id(TURN_START) not in found.labels
    assert small().token_to_id(END_OF_TEXT) not in [*found.labels, *found.inputs]


@quick
@given(conversations, st.sampled_from([prefixing(), *(small(**{name: True}) for name in ("lstrip", "single_word"))]))
def test_headers_and_contents_that_do_not_part_are_encoded_together(
    given: list[Conversation], tokenizer: Tokenizer
) -> None:
    check_conversations(encoder_of(tokenizer), [*given, [("user", "hello"), ("assistant", "<think>hello")]], 60)


@pytest.mark.parametrize(
    ("turns", "segments", "given_up"),
    [
        ([("user", "hello"), ("assistant", " \n world")], 1, 0),
        ([("system", ""), ("user", ""), ("assistant", "")], 1, 0),
        ([("user", "hello")], 0, 0),
        ([("user", "hello"), ("assistant", "world " * 60)], 0, 1),
        ([("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "hello " * 40)], 1, 1),
        ([("system", "hello"), *[("user", "hello world"), ("assistant", "world")] * 9], 9, 0),
        ([("user", "hello " * 40), ("assistant", "world")], 1, 0),
        ([], 0, 0),
    ],
    ids=["blank first", "all empty", "unanswered", "too long", "one too long", "windows", "long question", "no turns"],
)
def test_conversations_of_each_kind(turns: Conversation, segments: int, given_up: int) -> None:
    fitting = [("user", "hello"), ("assistant", "world")]
    for max_tokens in range(8, 60):
        check_conversations(encoder_of(small()), [fitting, turns], max_tokens)
    found = check_conversations(encoder_of(small()), [fitting, turns, fitting], 40)
    assert (found.owners == 1).sum() == segments
    lost = render_conversation(small(), turns, 40)[1]
    assert lost == given_up


def test_an_answer_that_spells_the_markers_ends_once() -> None:
    answer = f"hello{TURN_END}\n{TURN_START}user\nhello{END_OF_TEXT}"
    found = check_conversations(encoder_of(small()), [[("user", answer), ("assistant", answer)]], 400)
    special = [token for token in found.labels.tolist() if token in {small().token_to_id(t) for t in SPECIAL_TOKENS}]
    assert special == [small().token_to_id(TURN_END)]


def test_nothing_to_encode() -> None:
    encoder = encoder_of(small())
    check_conversations(encoder, [], 40)
    check_ids(encoder.encode, small(), [])
    assert len(encoder.documents([]).lengths) == 0


def test_ends_of_lines_and_sentences() -> None:
    tokenizer = small()
    tokenizer_ends = {"\n": 2, ".": 1, "!": 1, "?": 1, " ": 0, "a": 0, ",": 0, ")": 0}
    ranks = end_ranks(tokenizer)
    for text, rank in tokenizer_ends.items():
        assert ranks[expected_ids(tokenizer, [text])[0][-1]] == rank, text
    larger = Tokenizer.from_str(tokenizer.to_str())
    words = {"end.\n\n": 2, "。": 1, "so？": 1, '."': 1, "!) ": 1, "。」": 0, ".a": 0, "\n ": 0}
    larger.add_tokens([AddedToken(word, normalized=False) for word in words])
    ranks = end_ranks(larger)
    assert {word: int(ranks[larger.token_to_id(word)]) for word in words} == words
    assert not ranks[[larger.token_to_id(token) for token in SPECIAL_TOKENS]].any()


def huge_vocabulary(entries: int) -> Tokenizer:
    """`entries` ids, the last of which stands for "ab"."""
    alphabet = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = [*alphabet, *(f"filler{number}" for number in range(entries - len(alphabet) - 1)), "ab"]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, [("a", "b")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.encode_special_tokens = True
    return tokenizer


@pytest.mark.parametrize(("entries", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_ids_are_as_wide_as_the_vocabulary_needs(entries: int, dtype: type, tmp_path: Path) -> None:
    huge_vocabulary(entries).save(str(tmp_path / "tokenizer.json"))
    encoder = Encoder.open(tmp_path)
    assert encoder.id_dtype is dtype
    assert encoder.documents(["ab"]).inputs.tolist() == [0, entries - 1]
    assert encoder.documents(["ab"]).labels.tolist() == [entries - 1, 0]
