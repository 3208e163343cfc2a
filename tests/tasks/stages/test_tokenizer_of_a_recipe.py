"""A recipe's tokenizer, trained or given: it loses no text, and what is wrong with it is named."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer

from data.tokens.encode import Encoder
from model.files import sha256_of
from model.tokens.tokenizer import SPECIAL_TOKENS, load_tokenizer, train_tokenizer
from tasks.errors import NightStopped
from tasks.stages.tokens import make_tokenizer, tokenizer_digest
from tests.tasks.rows import chat_rows, small_tokenizer, split_folder, text_rows


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return split_folder(
        tmp_path / "rows",
        pretrain_train=text_rows(["train text one", "train text two"]),
        pretrain_val=text_rows(["secret of validation"] * 9),
        chat_train=chat_rows([[("question", "answer"), ("more", "enough")]]),
        chat_val=chat_rows([[("secret", "validation")]] * 9),
    ).path


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder with a tokenizer."""
    (tmp_path / "given").mkdir()
    small_tokenizer().save(str(tmp_path / "given" / "tokenizer.json"))
    return tmp_path / "given"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def on_the_hub(monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer | Exception) -> None:
    """The Hub has this one tokenizer, as `some/name`; or whoever asks gets this error."""

    def from_pretrained(name: str) -> Tokenizer:
        if isinstance(tokenizer, Exception) or name != "some/name":
            raise tokenizer if isinstance(tokenizer, Exception) else ValueError(name)
        return tokenizer

    monkeypatch.setattr("tasks.stages.tokens.Tokenizer", SimpleNamespace(from_pretrained=from_pretrained))


def test_a_trained_tokenizer_lies_in_the_folder(rows: Path, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(rows, "", 300, tmp_path)
    assert tokenizer.get_vocab_size() <= 300
    assert load_tokenizer(tmp_path).to_str() == tokenizer.to_str()
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2]
    digest = sha256_of(tmp_path / "tokenizer.json")
    make_tokenizer(rows, "", 300, tmp_path)
    assert sha256_of(tmp_path / "tokenizer.json") == digest


def test_the_validation_side_does_not_reach_the_tokenizer(rows: Path, out: Path, tmp_path: Path) -> None:
    without = split_folder(
        tmp_path / "without",
        pretrain_train=text_rows(["train text one", "train text two"]),
        chat_train=chat_rows([[("question", "answer"), ("more", "enough")]]),
    ).path
    assert make_tokenizer(rows, "", 300, out).to_str() == make_tokenizer(without, "", 300, out).to_str()


def test_a_tokenizer_of_a_folder_is_taken_over(
    rows: Path, given: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = small_tokenizer().get_vocab_size()
    monkeypatch.setenv("HOME", str(given.parent))
    for name in (str(given), "~/given"):
        tokenizer = make_tokenizer(rows, name, size, out)
        assert tokenizer.get_vocab() == small_tokenizer().get_vocab()
        assert load_tokenizer(out).encode("hello world").ids == small_tokenizer().encode("hello world").ids
        assert tokenizer_digest(name) == sha256_of(given / "tokenizer.json")


def test_a_tokenizer_of_the_hub_is_taken_over(rows: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = train_tokenizer(["hello world, this is a text"] * 20, 300)
    plain.encode_special_tokens = False
    on_the_hub(monkeypatch, plain)
    tokenizer = make_tokenizer(rows, "hub:some/name", 6_400, out)
    assert tokenizer.get_vocab() == plain.get_vocab()
    assert not set(tokenizer.encode("<|im_end|>").ids) & {0, 1, 2}, "no user can end a turn by typing its marker"
    assert tokenizer_digest("hub:some/name") == "hub:some/name"


@pytest.mark.parametrize("name", ["folder", "hub:some/name"])
def test_a_vocabulary_that_is_too_large_is_named_with_both_numbers(
    rows: Path, given: Path, out: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_the_hub(monkeypatch, small_tokenizer())
    size = small_tokenizer().get_vocab_size()
    with pytest.raises(NightStopped, match=rf"has {size} entries, model\.vocab_size is {size - 1}; raise it"):
        make_tokenizer(rows, str(given) if name == "folder" else name, size - 1, out)


def test_ids_with_gaps_are_refused(rows: Path, given: Path, out: Path) -> None:
    content = json.loads((given / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 900
    (given / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(NightStopped, match=rf"has {len(vocabulary)} entries and ids up to 900; number them"):
        make_tokenizer(rows, str(given), 6_400, out)


def test_a_tokenizer_that_cuts_and_pads_does_neither_here(rows: Path, given: Path, out: Path) -> None:
    cutting = Tokenizer.from_str(small_tokenizer().to_str())
    cutting.enable_truncation(4)
    cutting.enable_padding()
    cutting.save(str(given / "tokenizer.json"))
    encoder = Encoder.of(make_tokenizer(rows, str(given), 6_400, out))
    texts = ["hello world " * 9, "a"]
    expected = [len(small_tokenizer().encode(text).ids) + 1 for text in texts]
    assert encoder.documents(texts).lengths.tolist() == expected


def test_no_text_can_spell_a_marker_that_is_not_marked_as_special(rows: Path, given: Path, out: Path) -> None:
    content = json.loads((given / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        token["special"] = False
    (given / "tokenizer.json").write_text(json.dumps(content))
    make_tokenizer(rows, str(given), 6_400, out)
    for token in SPECIAL_TOKENS:
        ids, _ = Encoder.open(out).encode([f"hello{token}"])
        assert not set(ids.tolist()) & {0, 1, 2}
        assert load_tokenizer(out).decode(ids.tolist()) == f"hello{token}"


@pytest.mark.parametrize("content", [None, "", "{}", "no json"])
def test_a_folder_without_a_tokenizer_is_refused_by_name(rows: Path, out: Path, content: str | None) -> None:
    if content is not None:
        (out / "tokenizer.json").write_text(content)
    with pytest.raises(NightStopped) as stop:
        make_tokenizer(rows, str(out), 6_400, out)
    assert f"data.tokenizer {str(out)!r} cannot be loaded" in str(stop.value)


@pytest.mark.parametrize("error", [OSError("no route to the Hub"), Exception("404"), ValueError("gated")])
def test_a_tokenizer_the_hub_does_not_give_is_refused_by_name(
    rows: Path, out: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    on_the_hub(monkeypatch, error)
    with pytest.raises(NightStopped, match=rf"data\.tokenizer 'hub:some/name' cannot be loaded: {error}"):
        make_tokenizer(rows, "hub:some/name", 6_400, out)


@pytest.mark.parametrize("name", ["folder", "hub:some/name"])
def test_a_tokenizer_without_our_special_tokens_is_refused(
    rows: Path, given: Path, out: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = small_tokenizer().to_str().replace("<|im_start|>", "<|start|>")
    (given / "tokenizer.json").write_text(text, encoding="utf-8")
    on_the_hub(monkeypatch, Tokenizer.from_str(text))
    with pytest.raises(NightStopped, match=rf"data\.tokenizer '.*{name[-6:]}.*lacks <\|im_start\|>; add them"):
        make_tokenizer(rows, str(given.rename(given.parent / "folder")) if name == "folder" else name, 6_400, out)


def test_no_tokenizer_has_no_digest_and_a_folder_without_one_that_of_its_name(tmp_path: Path) -> None:
    assert tokenizer_digest("") == ""
    for name in (str(tmp_path), "~nobody-of-that-name/x"):
        assert tokenizer_digest(name) == name
