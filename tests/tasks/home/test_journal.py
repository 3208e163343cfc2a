"""One holder at a time, no late publication, and a stage folder that is there whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tasks.errors import NightBusy
from tasks.home.journal import Journal
from tasks.home.records import LOGS, RECORD
from tests.tasks.rows import stage_record

PROJECT = Path(__file__).resolve().parents[3]
KEY = "0123456789abcdef"
HOLD = """
import sys
from pathlib import Path
from tasks.home.journal import Journal
with Journal(Path(sys.argv[1])).lease("someone else") as token:
    print(token, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "home")


def publish(journal: Journal, token: int, key: str = KEY, content: str = "result") -> Path:
    """A stage's work from the working folder to the visible one."""
    working = journal.working_folder("split", key, resumable=False)
    (working / "rows.txt").write_text(content)
    journal.publish(working, stage_record(journal.stage_folder("split", key), key=key), token)
    return working


def test_a_lease_of_another_process_is_respected_until_that_process_is_dead(journal: Journal) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(journal.home)],
        cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "1\n"
            with pytest.raises(NightBusy) as busy, journal.lease("me"):
                pass
            for part in ("someone else", str(child.pid), str(journal.home)):
                assert part in str(busy.value)
            assert journal.read_token() == 1, "a refused lease must not take a token"
        finally:
            child.kill()
            child.wait()
    with journal.lease("me") as token:
        assert token == 2


def test_a_second_lease_in_the_same_process_is_refused(journal: Journal) -> None:
    with journal.lease("first"), pytest.raises(NightBusy, match="first"), journal.lease("second"):
        pass
    with journal.lease("second") as token:
        assert token == 2


def test_who_asks_whether_a_lease_is_held_keeps_nobody_from_taking_it(journal: Journal) -> None:
    done, answers = threading.Event(), set()

    def ask() -> None:
        while not done.wait(0.0005):
            answers.add(journal.is_held())

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(300):
            with journal.lease("night"):
                assert journal.is_held()
    finally:
        done.set()
        asking.join()
    assert not journal.is_held()
    assert answers, "nobody asked"


def test_tokens_rise_by_one_and_an_error_frees_the_lease(journal: Journal) -> None:
    tokens = []
    for number in range(4):
        with pytest.raises(ZeroDivisionError), journal.lease(f"night {number}") as token:
            tokens.append(token)
            raise ZeroDivisionError
    assert tokens == [1, 2, 3, 4]
    assert journal.read_token() == 4


def test_an_old_token_publishes_nothing(journal: Journal) -> None:
    with journal.lease("slow") as old:
        pass
    with journal.lease("fast") as new:
        pass
    with pytest.raises(NightBusy, match=f"token {old}, the newest is {new}"):
        publish(journal, old)
    assert journal.finished("split", KEY) is None
    assert not journal.stage_folder("split", KEY).exists()
    assert not (journal.home / "journal.jsonl").exists()
    publish(journal, new)
    assert journal.finished("split", KEY) is not None


def test_an_old_token_does_not_replace_what_is_published(journal: Journal) -> None:
    with journal.lease("slow") as old:
        pass
    with journal.lease("fast") as new:
        publish(journal, new, content="good")
    with pytest.raises(NightBusy):
        publish(journal, old, content="late")
    assert (journal.stage_folder("split", KEY) / "rows.txt").read_text() == "good"


def test_publication_shows_the_folder_whole_with_its_record(journal: Journal) -> None:
    with journal.lease("night") as token:
        assert journal.finished("split", KEY) is None
        working = publish(journal, token)
    folder = journal.stage_folder("split", KEY)
    assert sorted(p.name for p in folder.iterdir()) == [LOGS, RECORD, "rows.txt"]
    assert not working.exists()
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], "nothing is left beside it"
    record = journal.finished("split", KEY)
    assert record == stage_record(folder, key=KEY)
    assert record.reused


def test_publishing_again_replaces_the_whole_folder(journal: Journal) -> None:
    with journal.lease("night") as token:
        publish(journal, token)
        (journal.stage_folder("split", KEY) / "stale.txt").write_text("old")
        publish(journal, token, content="new")
    folder = journal.stage_folder("split", KEY)
    assert (folder / "rows.txt").read_text() == "new"
    assert not (folder / "stale.txt").exists()


def test_what_is_not_published_whole_is_not_finished(journal: Journal) -> None:
    with journal.lease("night") as token:
        publish(journal, token)
    assert journal.finished("split", KEY) is not None
    same_folder = KEY[:12] + "another"
    assert journal.stage_folder("split", same_folder) == journal.stage_folder("split", KEY)
    assert journal.finished("split", same_folder) is None, "the whole key counts, not its beginning"
    assert journal.finished("tokens", KEY) is None
    (journal.stage_folder("split", KEY) / RECORD).unlink()
    assert journal.finished("split", KEY) is None, "no record, no stage"
    partial = journal.working_folder("validate", KEY, resumable=False)
    stage_record(journal.stage_folder("validate", KEY), key=KEY).write(partial)
    assert journal.finished("validate", KEY) is None, "a partial folder is none, even with a record"


@pytest.mark.parametrize("resumable", [True, False])
def test_only_a_resumable_stage_finds_its_work_again(journal: Journal, resumable: bool) -> None:
    folder = journal.working_folder("pretrain", KEY, resumable)
    for path in (folder / "checkpoint", folder / LOGS / "run_id"):
        path.write_text("half")
    again = journal.working_folder("pretrain", KEY, resumable)
    assert again == folder
    assert (again / "checkpoint").exists() == (again / LOGS / "run_id").exists() == resumable
    assert (again / LOGS).is_dir()


def test_every_line_of_the_journal_is_json_and_in_order(journal: Journal) -> None:
    journal.note(event="note", text="two\nlines, “quoted” and {braced}", number=5)
    with journal.lease("night") as token:
        publish(journal, token)
    entries = [json.loads(line) for line in (journal.home / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [entry["event"] for entry in entries] == ["note", "published"]
    assert entries[0]["text"] == "two\nlines, “quoted” and {braced}"
    assert (entries[1]["stage"], entries[1]["key"], entries[1]["digest"]) == ("split", KEY, "d1")
    assert all("at" in entry for entry in entries)


@pytest.mark.parametrize("content", [None, "", "{", "{}", '{"token": "x"}'])
def test_without_a_readable_lease_the_first_token_is_one(journal: Journal, content: str | None) -> None:
    journal.home.mkdir()
    if content is not None:
        (journal.home / "lease.json").write_text(content)
    with journal.lease("night") as token:
        assert token == 1
