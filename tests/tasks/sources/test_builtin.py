"""The built-in corpus is what a user would bring: raw jsonl of the two formats, good enough for our own checks."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from data.rows.keys import names_of, row_ids
from schemas.adapters import check_rows
from tasks.sources.builtin import MAKERS, build_corpus, corpus_version, human_conversations

PRETRAIN = [name for name in MAKERS if name.startswith("pretrain-")]
CHAT = [name for name in MAKERS if name.startswith("chat-")]


def rows(corpus: Path, name: str, limit: int | None = None) -> list[dict[str, Any]]:
    with (corpus / f"{name}.jsonl").open(encoding="utf-8") as stream:
        return [json.loads(line) for line in islice(stream, limit)]


def test_every_file_is_there_once_and_nothing_else(corpus: Path) -> None:
    expected = {f"{name}.jsonl" for name in MAKERS} | {"data-card.md"}
    assert {path.name for path in corpus.iterdir()} == expected
    assert [path.name for path in corpus.parent.iterdir()] == [corpus_version()]
    assert sorted(PRETRAIN + CHAT) == sorted(MAKERS), "a name says its kind"


def test_building_again_finds_it_built(corpus: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in corpus.iterdir()}
    (corpus / "mine.txt").write_text("not to be lost")
    try:
        assert build_corpus(corpus.parents[1]) == corpus
        assert (corpus / "mine.txt").exists()
    finally:
        (corpus / "mine.txt").unlink()
    assert {path: path.stat().st_mtime_ns for path in corpus.iterdir()} == before


@pytest.mark.parametrize("name", PRETRAIN)
def test_pretraining_rows_have_text_and_source(corpus: Path, name: str) -> None:
    found = rows(corpus, name)
    assert found
    assert all(set(row) == {"text", "source"} for row in found)
    assert {row["source"] for row in found} == {name.removeprefix("pretrain-")}
    assert check_rows(found[:200], "pretrain", "minimind").faults == {}


@pytest.mark.parametrize("name", CHAT)
def test_chat_rows_alternate_and_end_with_an_answer(corpus: Path, name: str) -> None:
    found = rows(corpus, name)
    assert found
    for row in found:
        assert set(row) == {"conversations"}
        turns = row["conversations"]
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert all(set(turn) == {"role", "content"} and turn["content"].strip() for turn in turns)
    assert all(row["conversations"] for row in found)
    assert check_rows(found[:200], "chat", "minimind").faults == {}


def test_a_conversation_has_one_name_as_text_and_as_chat(corpus: Path) -> None:
    """Else a conversation could be trained on as text and validated with as chat."""
    text, chat = rows(corpus, "pretrain-conversations", 500), rows(corpus, "chat-conversations", 500)
    spoken = ["\n".join(turn["content"] for turn in row["conversations"]) for row in chat]
    names = row_ids(row["text"] for row in text)
    assert (names == row_ids(spoken)).all()
    assert len(set(names_of(names))) > 490


def test_no_speaker_has_two_turns_in_a_row() -> None:
    """Conversations of the package as they are: messages in a row are one turn, the last word is an answer."""
    for turns in islice(human_conversations(), 300):
        assert len(turns) >= 2
        assert [role for role, _ in turns] == ["user", "assistant"] * (len(turns) // 2)


def test_each_language_is_in_its_own_file(corpus: Path) -> None:
    def chinese_share(part: str) -> float:
        texts = [turn["content"] for row in rows(corpus, f"chat-{part}") for turn in row["conversations"]]
        return sum(any("\u4e00" <= c <= "\u9fff" for c in text) for text in texts) / len(texts)

    assert chinese_share("chinese") > 0.9
    assert chinese_share("english") == 0
    assert chinese_share("other-languages") < 0.5


def test_the_data_card_lists_each_file_with_size_and_licence(corpus: Path) -> None:
    lines = (corpus / "data-card.md").read_text(encoding="utf-8").splitlines()
    for name in MAKERS:
        [line] = [line for line in lines if line.startswith(f"| {name}.jsonl |")]
        _, _, count, size, origin, licence, _ = (cell.strip() for cell in line.split("|"))
        with (corpus / f"{name}.jsonl").open("rb") as stream:
            assert int(count.replace(",", "")) == sum(1 for _ in stream)
        assert int(size.replace(",", "")) == (corpus / f"{name}.jsonl").stat().st_size
        assert origin
        assert licence in {"MIT", "BSD-3-Clause", "PSF-2.0"}


def test_the_corpus_of_another_version_is_built_beside(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With makers of a row each; a build that broke off is swept away."""
    monkeypatch.setattr(
        "tasks.sources.builtin.MAKERS", {"pretrain-code": lambda: iter([{"text": "é", "source": "code"}])}
    )
    monkeypatch.setattr("tasks.sources.builtin.corpus_version", lambda: "other")
    broken = tmp_path / "corpus" / "other.partial"
    broken.mkdir(parents=True)
    (broken / "half.jsonl").write_text('{"te')
    folder = build_corpus(tmp_path)
    assert folder == tmp_path / "corpus" / "other"
    assert sorted(path.name for path in folder.iterdir()) == ["data-card.md", "pretrain-code.jsonl"]
    assert (folder / "pretrain-code.jsonl").read_text(encoding="utf-8") == '{"text": "é", "source": "code"}\n'
    assert not broken.exists()
