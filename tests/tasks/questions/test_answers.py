"""Questions of a person: about a row, a model and the quarantine, asked in every way there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data.lookup.fates import TRAIN, fate_of
from data.rows.keys import name_of, row_ids
from flows.__main__ import main
from model.tokens.order import TextReplay, rows_of_step
from tasks.errors import MESSAGE_LIMIT, NightStopped
from tasks.home.journal import Journal
from tasks.questions.answers import find_rows, who_ate, why_row
from tasks.questions.history import History, PreparedData
from tasks.questions.quarantine import text_of
from tests.lived_home import REPLAY_SHARE, LivedHome, run_id_of, trained_stage

ROOT = Path(__file__).resolve().parents[3]
QUESTIONS = [["why-row", "text.jsonl:5"], ["who-ate", "2"], ["who-ate", "2", "--all"], ["quarantine"]]
HEAVY = ("prefect", "torch", "mlflow", "pandera", "pydantic", "matplotlib")


@pytest.fixture(scope="module")
def data(lived: LivedHome) -> PreparedData:
    return History(lived.home).newest_data("tiny")


def fate_by(data: PreparedData, question: str) -> dict[str, str]:
    """What became of each row and line that a question finds, by file and line."""
    found = find_rows(data, "tiny", question)
    rows = {row: fate_of(data.corpus, row) for row in found.rows}
    told = {f"{data.labels[fate.place.part.part.number]}:{fate.place.line}": fate.what for fate in rows.values()}
    assert not (told and found.lines)
    return told or {f"{line.file}:{line.line}": "quarantined" for line in found.lines}


def test_every_line_has_one_fate_however_it_is_asked_for(lived: LivedHome, data: PreparedData) -> None:
    fates: Counter[str] = Counter()
    for label, lines in lived.written.items():
        for number, raw in enumerate(lines, start=1):
            place = f"{label}:{number}"
            if not raw.strip():
                with pytest.raises(NightStopped, match=f"{re.escape(place)} is blank"):
                    fate_by(data, place)
                fates["blank"] += 1
                continue
            told = fate_by(data, place)
            assert list(told) == [place]
            fates[told[place]] += 1
            text = text_of(raw.decode("utf-8", errors="replace")) or raw.decode("utf-8", errors="backslashreplace")
            if not text.strip():
                continue
            by_text = fate_by(data, text)
            assert place in by_text or len(by_text) == 5
            assert by_text.get(place, told[place]) == told[place]
            if told[place] != "quarantined":
                assert fate_by(data, name_of(row_ids([text])[0])) == by_text
    counts = lived.nights[1][1].counts
    assert fates.total() == counts["read"]
    assert fates["quarantined"] == counts["quarantined"]
    assert fates["blank"] == counts["blank"] > 0
    assert fates["exact duplicate"] == counts["exact_duplicate"]


def test_a_quarantined_line_is_found_by_name_and_by_any_spelling(data: PreparedData) -> None:
    named = name_of(row_ids(["bell \u0007 and 你好, with a name"])[0])
    for question in (named, named.upper(), "bell \u0007 and 你好", "你好, with a name", '{"text": "cut off'):
        assert set(fate_by(data, question).values()) == {"quarantined"}
    assert all(line.rule == "line_too_long" for line in find_rows(data, "tiny", "far too long " * 30).lines)


def how_often(num_rows: int, steps: int, seed: int, packed_row: int) -> str:
    """In words, by walking over all steps."""
    read = [n + 1 for n in range(steps) for row in rows_of_step(num_rows, 4, seed, n) if row == packed_row]
    whole = steps * 4 // num_rows
    told = [f"{whole} whole epoch{'s' * (whole > 1)}"] * bool(whole) + [f"step {max(read, default=0)}"] * (
        len(read) > whole
    )
    return " and ".join(told) or "not read"


def test_a_row_is_told_with_file_name_place_and_training(lived: LivedHome, data: PreparedData) -> None:
    """Training on the first night's tokens counts for its rows, and not for the second's."""
    said: Counter[str] = Counter()
    fates = [fate_of(data.corpus, row) for row in range(data.corpus.ledger.next_row)]
    for fate in [f for f in fates if f.what == TRAIN and f.place.part.kind == "pretrain" and len(f.segments) == 1]:
        place = f"{data.labels[fate.place.part.part.number]}:{fate.place.line}"
        answer = "\n".join(why_row(lived.home, place))
        [segment] = fate.segments
        for part in (place, fate.place.name, f"byte {fate.place.byte_offset:,}", f"{segment.shard} row {segment.row}"):
            assert part in answer
        for version in (1, 2):
            record = trained_stage(lived, "pretrain", version)
            lines = [line for line in answer.splitlines() if record.path.name in line]
            num_rows = lived.nights[version - 1][3].counts["pretrain_train_rows"]
            often = how_often(num_rows, record.counts["steps"], version, segment.packed_row)
            expected = [f"    {record.path.name} (run {record.run_id}): {often}"]
            assert lines == ([] if version == 1 and ".g0001." in segment.shard else expected)
            said[often.rstrip("0123456789")] += len(lines)
    assert set(said) == {"not read", "step ", "1 whole epoch", "1 whole epoch and step "}


def test_a_row_that_fine_tuning_read_as_text_is_told(lived: LivedHome, data: PreparedData) -> None:
    tuned, packed = trained_stage(lived, "sft", 2), lived.nights[1][3]
    text_rows, chat_rows = (packed.counts[f"{kind}_train_rows"] for kind in ("pretrain", "chat"))
    replay = TextReplay(chat_rows, text_rows, REPLAY_SHARE)
    steps: dict[int, list[str]] = {}
    for step in range(tuned.counts["steps"]):
        for row in rows_of_step(chat_rows + text_rows, 4, 2, step, replay).tolist():
            steps.setdefault(row - chat_rows, []).append(str(step + 1))
    told = 0
    fates = [fate_of(data.corpus, row) for row in range(data.corpus.ledger.next_row)]
    for fate in [f for f in fates if f.what == TRAIN and f.place.part.kind == "pretrain" and len(f.segments) == 1]:
        read = steps.get(fate.segments[0].packed_row)
        often = f"step{'s' * (len(read) > 1)} {', '.join(read)}" if read else "not read"
        place = f"{data.labels[fate.place.part.part.number]}:{fate.place.line}"
        expected = f"    {tuned.path.name} (run {tuned.run_id}): as text beside its own rows, {often}"
        assert expected in why_row(lived.home, place)
        told += bool(read)
    assert told > 5


def test_a_row_without_spaces_and_the_end_of_a_label_are_enough(lived: LivedHome, data: PreparedData) -> None:
    row = data.corpus.place(3)
    text = text_of(lived.written["text/text.jsonl"][row.line - 1].decode()) or ""
    assert fate_by(data, "".join(text.split())) == fate_by(data, f"text.jsonl:{row.line}")
    assert fate_by(data, json.dumps({"text": text})) == fate_by(data, row.name)


def test_a_name_borne_often_is_told_with_its_first_rows(lived: LivedHome) -> None:
    texts = Counter(text_of(line.decode("utf-8", "replace")) for line in lived.written["text/text.jsonl"])
    [(text, count)] = texts.most_common(1)
    answer = why_row(lived.home, text or "")
    assert answer[0] == f"{count} rows bear this name, the first 5:"
    assert sum("byte" in line and "name" in line and line[0] != " " for line in answer) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["why-row", "a text that nobody wrote"], "no row among 443 has that name or text, and 30 quarantined lines"),
        (["why-row", "f" * 32], "nothing is known of"),
        (["why-row", "text.jsonl:9999"], "text/text.jsonl has lines 1 to 195, not line 9,999"),
        (["why-row", "text.jsonl:0"], "has lines 1 to 195, not line 0"),
        (["why-row", "jsonl:1"], "FILE is one of rare/rare.jsonl"),
        (["why-row", "  "], "ask for a text, a row's name of 32 hexadecimal digits, or FILE:LINE"),
        (["why-row", "x" * 90_000], "nothing is known of"),
        (["why-row", "bytes that are no text: \udcff"], "nothing is known of"),
        (["why-row", "a", "--recipe", "other"], "no recipe 'other' has run in"),
        (["who-ate", "abc"], "no run 'abc'"),
        (["who-ate", "0" * 32], "name an MLflow run id of a night or a training stage"),
        (["who-ate", "77"], "version 77 of recipe tiny, or its folder is gone; the journal has 1, 2"),
        (["who-ate", run_id_of("night 1")], "was not finished; run it again"),
        (["quarantine", "--rule", "nope"], "by the rule 'nope', there are conversations_missing"),
        (["quarantine", "--file", "nope"], "no file 'nope' was validated, there are rare/rare.jsonl"),
    ],
)
def test_mistakes_end_with_one_bounded_message_and_code_2(
    lived: LivedHome, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(lived.home))
    assert main(words) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""
    assert len(printed.err) < MESSAGE_LIMIT + 10


@pytest.mark.parametrize("words", [["why-row", "a"], ["who-ate", "1"], ["quarantine"], ["quarantine", "--recheck"]])
def test_an_empty_home_is_no_mystery(words: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert str(home) in capsys.readouterr().err
    assert not home.exists(), "a question leaves nothing behind"


@pytest.mark.parametrize("words", [["why-row"], ["who-ate"], ["quarantine", "--show", "0"]])
def test_a_wrong_call_shows_the_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert f"usage: python -m flows {words[0]}" in capsys.readouterr().err


def test_what_is_gone_is_named(lived: LivedHome, copied: Path) -> None:
    """A stage folder may be deleted to make room."""
    (copied / "data" / lived.nights[1][2].path.name).unlink()
    with pytest.raises(NightStopped, match=r"the split stage that tokens@.* was made of is not in"):
        why_row(copied, "text.jsonl:1")
    (copied / "data" / lived.nights[1][3].path.name).unlink()
    with pytest.raises(NightStopped, match=r"the tokens that sft@.* was trained on are not in"):
        who_ate(copied, "2")
    with pytest.raises(NightStopped, match="no night of recipe tiny has come as far as the tokens stage"):
        why_row(copied, "text.jsonl:1")


@pytest.mark.parametrize("words", QUESTIONS)
def test_no_question_waits_for_a_large_library(lived: LivedHome, words: list[str]) -> None:
    """In a process of its own, whose reader may leave early."""
    check = (
        "import sys; from flows.__main__ import main; code = main(sys.argv[1:]);"
        f"sys.stderr.write(str(sorted(set({HEAVY!r}) & set(sys.modules)))); sys.exit(code)"
    )
    environment: dict[str, Any] = {"NIGHTSCHOOL_HOME": str(lived.home), "PATH": "/usr/bin:/bin"}
    asked = subprocess.Popen(
        [sys.executable, "-c", check, *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert asked.stdout is not None and asked.stderr is not None
    assert asked.stdout.readline()
    asked.stdout.close()
    assert asked.stderr.read().decode() == "[]"
    assert asked.wait() == 0


def test_a_second_recipe_has_a_past_of_its_own(lived: LivedHome, copied: Path) -> None:
    Journal(copied).remember(lived.nights[0][3], "other")
    first = "\n".join(why_row(copied, "text.jsonl:5", "other"))
    assert "recipe other" in first
    assert trained_stage(lived, "pretrain", 2).path.name not in first
    assert "recipe tiny" in why_row(copied, "text.jsonl:5", "tiny")[-1]


def test_an_answer_says_that_a_newer_validation_waits(lived: LivedHome, copied: Path) -> None:
    assert "newer" not in why_row(copied, "text.jsonl:5")[-1]
    Journal(copied).remember(lived.nights[0][3], "tiny")
    newer = lived.nights[1][0].path.name
    assert why_row(copied, "text.jsonl:5")[-1].endswith(f"{newer} is newer and has not become tokens so far")
