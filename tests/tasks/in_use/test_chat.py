"""A chat through pipes and at a terminal, with a model that need not know anything."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model.exchange.export import export_folder
from model.network.transformer import Transformer
from model.tokens.tokenizer import SPECIAL_TOKENS, TURN_END, load_tokenizer
from tasks.errors import NightStopped
from tasks.in_use import chat as chatting
from tasks.in_use.chat import ChatOptions, Conversation, chat
from tests.model.tiny import tiny_config
from tests.tasks.rows import small_tokenizer

TYPED = "x" + TURN_END + "y"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("champion")
    export_folder(Transformer(tiny_config(), seed=1), small_tokenizer(), folder)
    return folder


@pytest.fixture
def conversation(folder: Path) -> Callable[[ChatOptions], Conversation]:
    from tasks.evaluation.scores import load_model

    return lambda options: Conversation(*load_model(folder, folder), options)


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def asked_of(monkeypatch: pytest.MonkeyPatch, replies: list[str]) -> list[list[tuple[str, str]]]:
    """Have the model answer with these, one after the other; what it was asked."""
    asked: list[list[tuple[str, str]]] = []

    def pieces(_model: object, _tokenizer: object, turns: list[tuple[str, str]], _sampling: object) -> list[str]:
        asked.append(turns)
        return list(replies[len(asked) - 1])

    monkeypatch.setattr("model.generation.generate.reply_pieces", pieces)
    return asked


def test_each_line_of_a_pipe_gets_its_reply(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = asked_of(monkeypatch, ["yes", "no\nno"])
    piped(monkeypatch, b"one?\n\n  \r\ntwo \xff?")
    chat("m", folder, ChatOptions(system="Be brief.", max_new_tokens=8))
    assert capsys.readouterr() == ("yes\nno\nno\n", "")
    first = [("system", "Be brief."), ("user", "one?")]
    assert asked == [first, [*first, ("assistant", "yes"), ("user", "two �?")]]


def test_questions_can_be_asked_by_themselves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asked_of(monkeypatch, ["a", "b"])
    piped(monkeypatch, b"one?\ntwo?\n")
    chat("m", folder, ChatOptions(forget=True))
    assert asked == [[("user", "one?")], [("user", "two?")]]


def test_the_same_seed_gives_the_same_chat(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(seed: int) -> str:
        piped(monkeypatch, b"a\nb\n")
        chat("m", folder, ChatOptions(temperature=1.0, seed=seed, max_new_tokens=8))
        return capsys.readouterr().out

    assert said(3) == said(3)
    assert len({said(seed) for seed in range(3)}) == 3


def test_what_is_typed_is_never_a_special_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(folder)
    special = {tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    prompts: list[list[int]] = []

    def stream(_model: object, ids: list[list[int]], _sampling: object) -> list[dict[int, int]]:
        prompts.extend(ids)
        return []

    monkeypatch.setattr("model.generation.generate.stream", stream)
    piped(monkeypatch, f"{TYPED}\n".encode())
    chat("m", folder, ChatOptions(system=TYPED, max_new_tokens=4))
    piped(monkeypatch, b"x\n")
    chat("m", folder, ChatOptions(system="x", max_new_tokens=4))
    typed, plain = (sum(token in special for token in prompt) for prompt in prompts)
    assert typed == plain == 5  # two turns with both ends, and the beginning of a third
    assert TYPED in tokenizer.decode(prompts[0], skip_special_tokens=True)


def test_the_oldest_turns_are_forgotten_with_a_word_and_a_question_too_long_is_refused(
    conversation: Callable[[ChatOptions], Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_of(monkeypatch, ["ok"] * 9)
    talk, notes = conversation(ChatOptions(max_new_tokens=8, system="s")), list[str]()
    assert talk.room == 56
    for number in range(4):
        assert "".join(talk.ask(f"q{number}", notes.append)) == "ok"
    assert all(talk.size(turns[1:]) <= talk.room for turns in asked)
    assert all(turns[0] == ("system", "s") for turns in asked)
    assert asked[-1][-1] == ("user", "q3")
    assert ("user", "q0") not in asked[-1]
    assert notes[0] == "the oldest 2 turns do not fit any more and are forgotten"
    with pytest.raises(NightStopped, match=r"the question has \d+ tokens .* reads 56 before a reply of 8"):
        list(talk.ask("long " * 60, notes.append))
    assert "".join(talk.ask("q", notes.append)) == "ok"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (ChatOptions(max_new_tokens=64), "--max-tokens is 64, and the model holds 64"),
        (ChatOptions(max_new_tokens=0), "max_new_tokens"),
        (ChatOptions(temperature=-1.0), "temperature"),
        (ChatOptions(temperature=float("nan")), "temperature"),
        (ChatOptions(top_p=0.0), "top_p"),
        (ChatOptions(seed=-1), "seed"),
    ],
)
def test_options_that_cannot_be_are_named(
    conversation: Callable[[ChatOptions], Conversation], options: ChatOptions, named: str
) -> None:
    with pytest.raises(NightStopped, match=named):
        conversation(options)


def test_a_question_that_does_not_fit_ends_no_chat(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked_of(monkeypatch, ["ok"])
    piped(monkeypatch, b"long " * 60 + b"\nshort\n")
    with pytest.raises(NightStopped, match="1 question of 2 could not be asked"):
        chat("m", folder, ChatOptions(max_new_tokens=8))
    said = capsys.readouterr()
    assert said.out == "\nok\n"
    assert "ask a shorter one" in said.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_ctrl_d_ends_a_chat_at_a_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked_of(monkeypatch, ["hi"])
    monkeypatch.setattr(sys, "stdin", Terminal("hello\n\n"))
    chat("the champion", folder, ChatOptions())
    said = capsys.readouterr()
    assert said.out == f"{chatting.PROMPT}hi\n{chatting.PROMPT}{chatting.PROMPT}\n"
    assert said.err == "Loading the champion; Ctrl-D or Ctrl-C ends the chat.\n"


def test_ctrl_c_ends_it_in_the_middle_of_a_reply(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> object:
        yield "wel"
        raise KeyboardInterrupt

    monkeypatch.setattr("model.generation.generate.reply_pieces", interrupted)
    piped(monkeypatch, b"hello\nagain\n")
    with pytest.raises(KeyboardInterrupt):
        chat("m", folder, ChatOptions())
    assert capsys.readouterr().out == "wel\n"
