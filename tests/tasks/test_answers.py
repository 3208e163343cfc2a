"""Questions of a person: about a row, a model and the quarantine, asked in every way there is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.keys import name_of, row_ids
from data.lookup import TRAIN, fate_of
from data.shards import open_segments
from flows.__main__ import main
from model.order import rows_of_step
from tasks import history as history_module
from tasks import validate as validate_module
from tasks.answers import find, who_ate, who_ate_rows, why_row
from tasks.artifacts import StageRecord
from tasks.errors import MESSAGE_LIMIT, NightStopped
from tasks.history import Data, History
from tasks.journal import Journal
from tasks.lineage import find_model
from tasks.night import note_outcome
from tasks.quarantine import text_of
from tests.lived_home import LivedHome, live, publish, run_id_of, train

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = {"first": (7, 9), "second": (80, 25)}
QUESTIONS = [["why-row", "text.jsonl:5"], ["who-ate", "2"], ["who-ate", "2", "--all"], ["quarantine"]]
HEAVY = ("prefect", "torch", "mlflow", "pandera", "pydantic", "matplotlib")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> LivedHome:
    """Two nights, trained; the first was promoted, the second has a note that tells its stages."""
    lived = live(tmp_path_factory.mktemp("lived"))
    journal = Journal(lived.home)
    for version, (records, steps) in enumerate(zip(lived.nights, STEPS.values(), strict=True), start=1):
        pretrained, tuned = train(lived.home, records[3], steps, seed=version)
        journal.note(event="decided", version=version, promoted=version == 1, reason="")
        registered = publish(lived.home, "register", {"trained": tuned.digest}, {"version": version})
        note = lived.home / "nights" / f"tiny@{version}.json"
        note.parent.mkdir(exist_ok=True)
        note.write_text(json.dumps({"run_id": run_id_of(f"night {version}"), "key": str(version)}))
        if version == 2:
            note_outcome(note, [*records, pretrained, tuned, registered], {"version": version, "promoted": False})
    return lived


@pytest.fixture(scope="module")
def data(lived: LivedHome) -> Data:
    return History(lived.home).newest_data("tiny")


def fate_by(data: Data, question: str) -> dict[str, str]:
    """What became of each row and line that a question finds, by file and line."""
    found = find(data, "tiny", question)
    rows = {row: fate_of(data.corpus, row) for row in found.rows}
    told = {f"{data.labels[fate.place.part.part.number]}:{fate.place.line}": fate.what for fate in rows.values()}
    assert not (told and found.lines)
    return told or {f"{line.file}:{line.line}": "quarantined" for line in found.lines}


def trained_stage(lived: LivedHome, stage: str, version: int) -> StageRecord:
    model = find_model(History(lived.home), str(version))
    return next(t.record for t in model.trainings if t.record.stage == stage)


def test_every_line_has_one_fate_however_it_is_asked_for(lived: LivedHome, data: Data) -> None:
    fates: Counter[str] = Counter()
    for label, lines in lived.written.items():
        for number, raw in enumerate(lines, start=1):
            place = f"{label}:{number}"
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
    assert fates["exact duplicate"] == counts["exact_duplicate"]


def test_a_quarantined_line_is_found_by_name_and_by_any_spelling(data: Data) -> None:
    named = name_of(row_ids(["bell \u0007 and 你好, with a name"])[0])
    for question in (named, named.upper(), "bell \u0007 and 你好", "你好, with a name", '{"text": "cut off'):
        assert set(fate_by(data, question).values()) == {"quarantined"}
    assert all(line.rule == "line_too_long" for line in find(data, "tiny", "far too long " * 30).lines)


def how_often(num_rows: int, steps: int, seed: int, packed_row: int) -> str:
    """In words, by walking over all steps."""
    read = [n + 1 for n in range(steps) for row in rows_of_step(num_rows, 4, seed, n) if row == packed_row]
    whole = steps * 4 // num_rows
    told = [f"{whole} whole epoch{'s' * (whole > 1)}"] * bool(whole) + [f"step {read[-1]}"] * (len(read) > whole)
    return " and ".join(told) or "not read"


def test_a_row_is_told_with_file_name_place_and_training(lived: LivedHome, data: Data) -> None:
    """Training on the first night's tokens counts for its rows, and not for the second's."""
    said: Counter[str] = Counter()
    fates = [fate_of(data.corpus, row) for row in range(data.corpus.ledger.next_row)]
    for fate in [f for f in fates if f.what == TRAIN and f.place.part.kind == "pretrain" and len(f.segments) == 1][::6]:
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


def test_a_row_without_spaces_and_the_end_of_a_label_are_enough(lived: LivedHome, data: Data) -> None:
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


def reference_rows(lived: LivedHome, version: int) -> Counter[str]:
    """Name → tokens read, step by step."""
    packed, data = lived.nights[version - 1][3], History(lived.home).data_of(lived.nights[version - 1][3])
    tokens: Counter[str] = Counter()
    for kind, steps in zip(("pretrain", "chat"), list(STEPS.values())[version - 1], strict=True):
        by_row = open_segments(packed.path, kind, "train").partition_by("row", as_dict=True)
        for step in range(steps):
            for row in rows_of_step(packed.counts[f"{kind}_train_rows"], 4, version, step).tolist():
                for length, document in by_row[row,].select("length", "document").iter_rows():
                    tokens[data.corpus.place(document).name] += length
    return tokens


@pytest.mark.parametrize("version", [1, 2])
def test_all_rows_of_a_model_are_those_that_its_steps_touched(lived: LivedHome, version: int) -> None:
    rows = [json.loads(line) for some in who_ate_rows(lived.home, str(version)) for line in some.splitlines()]
    expected = reference_rows(lived, version)
    assert {row["name"]: round(row["tokens"] * row["times"]) for row in rows} == expected
    assert len(rows) == len(expected)
    for row in rows:
        raw = lived.written[row["file"]][row["line"] - 1]
        assert name_of(row_ids([text_of(raw.decode()) or ""])[0]) == row["name"]
        assert (lived.raw / Path(row["file"]).name).read_bytes()[row["byte_offset"] :].startswith(raw)


@pytest.mark.parametrize("version", [1, 2])
def test_what_a_model_ate_and_never_saw_is_all_there_is(lived: LivedHome, version: int) -> None:
    answer = who_ate(lived.home, str(version))
    rows = [json.loads(line) for some in who_ate_rows(lived.home, str(version)) for line in some.splitlines()]
    expected = reference_rows(lived, version)
    for source, kind in {(row["source"], row["kind"]) for row in rows}:
        names = {row["name"] for row in rows if row["source"] == source}
        tokens = sum(expected[name] for name in names)
        assert f"  {kind:<8}  {source}: {len(names):,} rows, {tokens:,} tokens" in answer
    [never] = [line for line in answer if line.startswith("never seen")]
    numbers = [int(word.replace(",", "")) for word in never.split() if word.replace(",", "").isdigit()]
    counts = lived.nights[version - 1][1].counts
    assert numbers[:2] == [counts["read"] - len(rows), counts["read"]]
    assert sum(numbers[2:]) == numbers[0]
    assert min(numbers) >= 0
    shown = [line.split()[0] for line in answer[answer.index(never) + 2 :]]
    assert shown == [row["name"] for row in rows[:20]]


def test_a_model_is_found_by_every_name_it_has(lived: LivedHome) -> None:
    """A version by its register stage or the night's note, a run by its beginning."""
    second = [trained_stage(lived, stage, 2) for stage in ("pretrain", "sft")]
    for run in ("2", run_id_of("night 2"), run_id_of("night 2")[:8], second[1].run_id, second[1].run_id[:9]):
        model = find_model(History(lived.home), run)
        assert [t.record.digest for t in model.trainings] == [r.digest for r in second]
    [only] = find_model(History(lived.home), second[0].run_id).trainings
    assert only.record.digest == second[0].digest
    assert find_model(History(lived.home), "champion").name == "champion, version 1"


def test_a_promotion_by_hand_counts(lived: LivedHome, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("data", "nights", "newest"):
        (home / name).symlink_to(lived.home / name)
    (home / "journal.jsonl").write_bytes((lived.home / "journal.jsonl").read_bytes() + b'{"at": "cut o')
    with (home / "journal.jsonl").open("a") as stream:
        stream.write("\n")
    Journal(home).note(event="promoted by hand", version=2, before=1)
    assert find_model(History(home), "champion").name == "champion, version 2"


def test_names_of_files_are_those_of_the_validation() -> None:
    assert (history_module.PARTS, history_module.PIECES) == (validate_module.PARTS, validate_module.PIECES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["why-row", "a text that nobody wrote"], "no row among 443 has that name or text, and 35 quarantined lines"),
        (["why-row", "f" * 32], "nothing is known of"),
        (["why-row", "text.jsonl:9999"], "text/text.jsonl has 195 lines, there is no line 9,999"),
        (["why-row", "text.jsonl:0"], "there is no line 0"),
        (["why-row", "jsonl:1"], "FILE is one of rare/rare.jsonl"),
        (["why-row", "  "], "ask for a text, a row's name of 32 hexadecimal digits, or FILE:LINE"),
        (["why-row", "x" * 90_000], "nothing is known of"),
        (["why-row", "a", "--recipe", "other"], "no recipe 'other' has run in"),
        (["who-ate", "abc"], "no run 'abc'"),
        (["who-ate", "0" * 32], "name an MLflow run id of a night or a training stage"),
        (["who-ate", "77"], "version 77 of the model, or its folder is gone; the journal has 1, 2"),
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


def test_a_run_of_a_stage_that_trains_nothing_says_so(lived: LivedHome) -> None:
    with pytest.raises(NightStopped, match="of the stage tokens, which trains nothing"):
        find_model(History(lived.home), lived.nights[1][3].run_id)


@pytest.mark.parametrize(
    "words", [["why-row", "a"], ["who-ate", "champion"], ["quarantine"], ["quarantine", "--recheck"]]
)
def test_an_empty_home_is_no_mystery(words: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert str(home) in capsys.readouterr().err
    assert not home.exists(), "a question leaves nothing behind"


def test_what_is_gone_is_named(lived: LivedHome, tmp_path: Path) -> None:
    """A stage folder may be deleted to make room."""
    (tmp_path / "data").mkdir()
    for folder in (lived.home / "data").iterdir():
        if not folder.name.startswith("split@"):
            (tmp_path / "data" / folder.name).symlink_to(folder)
    for name in ("nights", "newest", "journal.jsonl"):
        (tmp_path / name).symlink_to(lived.home / name)
    with pytest.raises(NightStopped, match=r"the split stage that tokens@.* was made of is not in"):
        why_row(tmp_path, "text.jsonl:1")


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


def test_a_second_recipe_has_a_past_of_its_own(lived: LivedHome) -> None:
    journal = Journal(lived.home)
    assert History(lived.home).recipe(None) == "tiny"
    journal.remember(replace(lived.nights[0][3]), "other")
    try:
        first = "\n".join(why_row(lived.home, "text.jsonl:5", "other"))
        assert "recipe other" in first
        assert trained_stage(lived, "pretrain", 2).path.name not in first
        assert "recipe tiny" in why_row(lived.home, "text.jsonl:5", "tiny")[-1]
    finally:
        (lived.home / "newest" / "other.json").unlink()
