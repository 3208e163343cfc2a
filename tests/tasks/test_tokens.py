"""Packing loses nothing, repeats nothing and knows what is where; the validation side never reaches the tokenizer."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from model.config import IGNORED
from model.files import sha256_of
from model.tokenizer import SPECIAL_TOKENS, load_tokenizer
from tasks.artifacts import DatasetRef, TokensRef
from tasks.errors import NightStopped
from tasks.split import KINDS, SIDES
from tasks.tokens import (
    Packed,
    make_tokenizer,
    open_packed,
    open_segments,
    pack_rows,
    tokenizer_digest,
    training_texts,
    write_packed,
)
from tests.reference.targets import END_OF_TEXT, answer_targets, rendered, text_targets
from tests.tasks.rows import Exchange, chat_rows, small_tokenizer, split_folder, text_rows, turns_of

quick = settings(max_examples=40, deadline=None, derandomize=True)
words = st.sampled_from(["hello", "world", "a", "é", "漢字", "😀", "<|im_end|>", "<|endoftext|>", "user\n", "."])
spoken = st.lists(words, min_size=1, max_size=4).map(" ".join)
documents = st.lists(
    st.one_of(spoken, st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)).flatmap(
        lambda text: st.integers(1, 6).map(lambda times: text * times)
    ),
    max_size=12,
)
conversations = st.lists(st.lists(st.tuples(spoken, spoken), min_size=1, max_size=4), max_size=6)
CHAT_SLOTS = 160
"""Enough for any one exchange of `conversations`, not for all of a conversation."""


def decode(ids: np.ndarray) -> str:
    return str(small_tokenizer().decode(ids.tolist(), skip_special_tokens=False))


def slots(packed: Packed) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """(inputs, labels) of each segment, by the row they come from, where the segments table says they are."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for row, start, length, row_id in packed.segments.select("row", "start", "length", "row_id").iter_rows():
        where = row, slice(start, start + length)
        found.setdefault(row_id, []).append((packed.tokens.input_ids[where], packed.tokens.labels[where]))
    return found


def targets(packed: Packed) -> Counter[int]:
    return Counter(packed.tokens.labels[packed.tokens.labels != IGNORED].tolist())


def check_segments_table(packed: Packed, rows: pl.DataFrame) -> None:
    """It says of every slot that holds a token whose it is, and of no other; each row's source goes with it."""
    expected = np.zeros_like(packed.tokens.segment_ids)
    for row, start, length in packed.segments.select("row", "start", "length").iter_rows():
        assert length > 0
        assert (expected[row, start : start + length] == 0).all()
        expected[row, start : start + length] = expected[row].max() + 1
    assert (packed.tokens.segment_ids == expected).all()
    assert packed.segments.select("row", "start").rows() == sorted(packed.segments.select("row", "start").rows())
    owners = packed.segments.select("row_id", "source").unique().sort("row_id")
    assert_frame_equal(
        owners, rows.select("row_id", "source").filter(pl.col("row_id").is_in(owners["row_id"])).sort("row_id")
    )


@quick
@given(documents, st.integers(4, 64))
def test_every_token_of_a_text_is_a_target_once(texts: list[str], max_tokens: int) -> None:
    tokenizer, rows = small_tokenizer(), text_rows(texts)
    packed = pack_rows(rows, tokenizer, max_tokens)
    expected = {f"text-{n}": text_targets(tokenizer, text) for n, text in enumerate(texts)}
    assert targets(packed) == sum(map(Counter, expected.values()), Counter())
    check_segments_table(packed, rows)
    found = slots(packed)
    assert set(found) == set(expected)
    for (row_id, pieces), text in ((item, texts[int(item[0].partition("-")[2])]) for item in found.items()):
        assert Counter(np.concatenate([labels for _, labels in pieces]).tolist()) == Counter(expected[row_id])
        assert [len(inputs) for inputs, _ in pieces].count(max_tokens) >= len(pieces) - 1, "only the last may be short"
        if len(pieces) == 1:
            [(inputs, labels)] = pieces
            assert decode(inputs) == END_OF_TEXT + text
            assert decode(labels) == text + END_OF_TEXT
    assert packed.given_up == 0
    assert packed.tokens.sequence_length_tokens == max_tokens


@quick
@given(conversations)
def test_every_answer_of_a_conversation_is_learned_once(talks: list[list[Exchange]]) -> None:
    tokenizer, rows = small_tokenizer(), chat_rows(talks)
    packed = pack_rows(rows, tokenizer, CHAT_SLOTS)
    assert packed.given_up == 0
    answers = [[answer_targets(tokenizer, answer) for _, answer in talk] for talk in talks]
    assert targets(packed) == sum((Counter(ids) for talk in answers for ids in talk), Counter())
    check_segments_table(packed, rows)
    found = slots(packed)
    for number, talk in enumerate(talks):
        pieces = found[f"chat-{number}"]
        learned = np.concatenate([labels[labels != IGNORED] for _, labels in pieces])
        assert Counter(learned.tolist()) == Counter(token for ids in answers[number] for token in ids)
        whole = rendered(turns_of(talk))
        assert all(decode(inputs) in whole for inputs, _ in pieces), "every window is a stretch of the conversation"
        assert sum(len(decode(inputs)) + 1 for inputs, _ in pieces) == len(whole), "cut only where a turn ends"


def test_an_answer_longer_than_a_row_is_given_up_and_counted() -> None:
    rows = chat_rows([[("hello", "world " * 99)], [("hello", "world")]])
    packed = pack_rows(rows, small_tokenizer(), 48)
    assert packed.given_up == 1
    assert set(packed.segments["row_id"]) == {"chat-1"}


def test_packing_is_a_function_of_rows_and_order() -> None:
    rows = text_rows(["hello world", "a text", "this is another", "hello"])
    one, same, turned = (pack_rows(table, small_tokenizer(), 32) for table in (rows, rows.clone(), rows.reverse()))
    assert (one.tokens.input_ids == same.tokens.input_ids).all()
    assert_frame_equal(one.segments, same.segments)
    assert targets(one) == targets(turned)


def test_rows_of_short_documents_are_almost_full() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["hello", "world", "text", "this"], rng.integers(3, 50))) for _ in range(400)]
    packed = pack_rows(text_rows(texts), small_tokenizer(), 128)
    real = sum(len(text_targets(small_tokenizer(), text)) for text in texts)
    assert packed.tokens.num_rows == math.ceil(real / 128), "fewer rows there cannot be"
    assert packed.fill == real / packed.tokens.input_ids.size
    assert packed.fill >= 0.99


def written(folder: Path, rows: pl.DataFrame, name: str = "pretrain.val", max_tokens: int = 32) -> Packed:
    folder.mkdir(exist_ok=True)
    packed = pack_rows(rows, small_tokenizer(), max_tokens)
    write_packed(packed, folder, name)
    return packed


TEXTS = ["hello world, this is a text", "漢字", "a", "hello " * 30]


def test_packed_rows_come_back_from_the_file(tmp_path: Path) -> None:
    packed = written(tmp_path / "tokens", text_rows(TEXTS))
    opened = open_packed(TokensRef(tmp_path / "tokens", "digest"), "pretrain", "val")
    for name in ("input_ids", "labels", "segment_ids"):
        before, after = getattr(packed.tokens, name), getattr(opened, name)
        assert after.dtype == before.dtype
        assert (after == before).all()
        assert after.shape == before.shape
    assert_frame_equal(open_segments(TokensRef(tmp_path / "tokens", ""), "pretrain", "val"), packed.segments)


def test_the_fingerprint_names_content_kind_and_side(tmp_path: Path) -> None:
    prints = set()
    for kind in KINDS:
        for side in SIDES:
            written(tmp_path / "tokens", text_rows(TEXTS), f"{kind}.{side}")
            prints |= {open_packed(TokensRef(tmp_path / "tokens", d), kind, side).fingerprint for d in ("d1", "d2")}
    assert len(prints) == 8


def test_packed_rows_are_mapped_not_read(tmp_path: Path) -> None:
    """What is written to the file afterwards shows in the rows that were opened before."""
    packed = written(tmp_path / "tokens", text_rows(TEXTS))
    opened = open_packed(TokensRef(tmp_path / "tokens", "digest"), "pretrain", "val")
    assert opened.labels.any()
    path = tmp_path / "tokens" / "pretrain.val.arrow"
    for array in (packed.tokens.input_ids, packed.tokens.labels, packed.tokens.segment_ids):
        place = path.read_bytes().index(array.tobytes())
        with path.open("r+b") as stream:
            stream.seek(place)
            stream.write(bytes(array.nbytes))
    assert not opened.input_ids.any()
    assert not opened.labels.any()
    assert not opened.segment_ids.any()


def test_datasets_opens_the_file(tmp_path: Path) -> None:
    import datasets

    packed = written(tmp_path / "tokens", text_rows(TEXTS))
    table = datasets.Dataset.from_file(str(tmp_path / "tokens" / "pretrain.val.arrow"))
    assert table.column_names == ["input_ids", "labels", "segment_ids"]
    for name in table.column_names:
        assert table[:][name] == getattr(packed.tokens, name).tolist()


@pytest.mark.parametrize("rows", [text_rows([]), chat_rows([]), chat_rows([[("hello", "world " * 99)]])])
def test_nothing_to_pack_is_written_and_opened_as_no_rows(tmp_path: Path, rows: pl.DataFrame) -> None:
    """Also when every answer is too long for a row."""
    packed = written(tmp_path / "tokens", rows)
    assert packed.fill == 0.0
    opened = open_packed(TokensRef(tmp_path / "tokens", "digest"), "pretrain", "val")
    assert (opened.num_rows, opened.sequence_length_tokens) == (0, 32)


@pytest.fixture
def rows(tmp_path: Path) -> DatasetRef:
    return split_folder(
        tmp_path / "rows",
        pretrain_train=text_rows(["train text one", "train text two"]),
        pretrain_val=text_rows(["secret of validation"]),
        chat_train=chat_rows([[("question", "answer"), ("more", "enough")]]),
        chat_val=chat_rows([[("secret", "validation")]]),
    )


def test_the_tokenizer_learns_from_the_train_side_only(rows: DatasetRef) -> None:
    assert list(training_texts(rows)) == ["train text one", "train text two", "question\nanswer\nmore\nenough"]


def test_the_text_for_the_tokenizer_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind has half of the bound."""
    monkeypatch.setattr("tasks.tokens.TOKENIZER_TRAINING_BYTES", 100)
    ref = split_folder(
        tmp_path / "many",
        pretrain_train=text_rows(["0123456789"] * 99),
        chat_train=chat_rows([[("01234", "567890123")]] * 99),
    )
    texts = list(training_texts(ref))
    assert [texts.count("0123456789"), texts.count("01234\n567890123")] == [5, 3]
    assert len(texts) == 8


def test_a_trained_tokenizer_lies_in_the_folder(rows: DatasetRef, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(rows, "", 300, tmp_path)
    assert tokenizer.get_vocab_size() <= 300
    assert load_tokenizer(tmp_path).to_str() == tokenizer.to_str()
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2]
    assert not set(tokenizer.encode("<|im_end|>").ids) & {0, 1, 2}, "no user can end a turn by typing its marker"
    again = tmp_path / "again"
    again.mkdir()
    make_tokenizer(rows, "", 300, again)
    assert sha256_of(again / "tokenizer.json") == sha256_of(tmp_path / "tokenizer.json")


def test_a_tokenizer_of_a_folder_is_taken_over(
    rows: DatasetRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, out = tmp_path / "given", tmp_path / "out"
    for folder in (given, out):
        folder.mkdir()
    small_tokenizer().save(str(given / "tokenizer.json"))
    size = small_tokenizer().get_vocab_size()
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(given), "~/given"):
        tokenizer = make_tokenizer(rows, name, size, out)
        assert tokenizer.get_vocab() == small_tokenizer().get_vocab()
        assert load_tokenizer(out).encode("hello world").ids == small_tokenizer().encode("hello world").ids
        assert tokenizer_digest(name) == sha256_of(given / "tokenizer.json")
    with pytest.raises(NightStopped, match=rf"has {size} entries, model\.vocab_size is {size - 1}"):
        make_tokenizer(rows, str(given), size - 1, out)


def test_no_folder_has_no_tokenizer_digest(tmp_path: Path) -> None:
    assert tokenizer_digest("") == tokenizer_digest(str(tmp_path)) == ""


@pytest.mark.parametrize("content", [None, "", "{}", "no json"])
def test_a_folder_without_a_tokenizer_is_refused_by_name(rows: DatasetRef, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(NightStopped) as stop:
        make_tokenizer(rows, str(tmp_path), 6_400, tmp_path)
    assert f"data.tokenizer {str(tmp_path)!r} cannot be loaded" in str(stop.value)


def test_a_tokenizer_without_our_special_tokens_is_refused(rows: DatasetRef, tmp_path: Path) -> None:
    text = small_tokenizer().to_str().replace("<|im_start|>", "<|start|>")
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(NightStopped, match=r"lacks <\|im_start\|>"):
        make_tokenizer(rows, str(tmp_path), 6_400, tmp_path)
