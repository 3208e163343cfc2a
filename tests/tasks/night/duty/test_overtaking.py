"""A night that was stopped is overtaken, wakes up, and publishes nothing: real processes and their signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from flows.__main__ import main
from tasks.errors import NightBusy, NightStopped
from tasks.home import lease as leases
from tasks.home.journal import Journal
from tasks.night.opening import ending_as_it_ended
from tasks.tracking.tracker import DictTracker
from tests.tasks.rows import stage_record

PROJECT = Path(__file__).resolve().parents[4]
NIGHT = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tasks.errors import NightStopped
from tasks.home.journal import Journal
from tasks.night.opening import ending_as_it_ended
from tasks.tracking.tracker import DictTracker
from tests.tasks.rows import stage_record
journal = Journal(Path(sys.argv[1]))
try:
    with journal.lease(sys.argv[2]) as token:
        print("holds", token, flush=True)
        for line in sys.stdin:
            key = line.strip()
            working = journal.working_folder("split", key, resumable=False)
            journal.publish(working, stage_record(journal.stage_folder("split", key), key=key), token)
            print("published", key, flush=True)
except NightStopped as stop:
    print(type(stop).__name__, stop, flush=True)
    raise SystemExit(stop.exit_code)
"""
FIRST, SECOND = "1" * 12, "2" * 12


class Night:
    """A process that holds a home and publishes what it is told to."""

    def __init__(self, home: Path, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", NIGHT, str(home), name], cwd=PROJECT, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def publish(self, key: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{key}\n")
        self.process.stdin.flush()

    def says(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def nights(home: Path) -> Iterator[list[Night]]:
    started: list[Night] = []
    yield started
    for night in started:
        night.end()


def test_an_owner_that_was_stopped_past_a_takeover_publishes_nothing(home: Path, nights: list[Night]) -> None:
    journal, old = Journal(home), Night(home, "old")
    nights.append(old)
    assert old.says() == "holds 1"
    old.publish(FIRST)
    assert old.says() == f"published {FIRST}"
    old.stop()
    with pytest.raises(NightBusy, match=rf"process {old.process.pid} on .*, and is stopped: kill -CONT") as busy:
        journal.lease("new").__enter__()
    assert "python -m flows take-over" in str(busy.value)
    assert journal.take_over("a person") == 2
    new = Night(home, "new")
    nights.append(new)
    assert new.says() == "holds 3"
    old.publish(SECOND)
    old.process.send_signal(signal.SIGCONT)
    assert old.says() == (
        "NightBusy this night was overtaken: it holds token 1, the newest is 3; nothing was published, run it again"
    )
    assert old.process.wait(timeout=60) == NightBusy.exit_code
    assert journal.finished("split", SECOND) is None
    new.publish(SECOND)
    assert new.says() == f"published {SECOND}", "that the old one ended frees nothing of the new one's"
    with pytest.raises(NightBusy, match="new, process"):
        journal.lease("third").__enter__()
    assert [entry["event"] for entry in journal.entries()] == ["published", "taken over", "published"]


def test_the_command_ends_the_owner_and_frees_the_home(
    home: Path, nights: list[Night], capsys: pytest.CaptureFixture[str]
) -> None:
    old = Night(home, "old")
    nights.append(old)
    assert old.says() == "holds 1"
    old.stop()
    assert main(["take-over"]) == 0
    assert f"process {old.process.pid} was ended" in capsys.readouterr().out
    assert not psutil.pid_exists(old.process.pid)
    with Journal(home).lease("new") as token:
        assert token == 3


def test_there_is_nothing_to_take_over_where_no_night_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["take-over"]) == NightStopped.exit_code
        assert f"no night runs in {home}" in capsys.readouterr().err
        with Journal(home).lease("once"):
            pass
    assert Journal(home).read_token() == 2


def test_an_owner_that_is_publishing_is_not_deprived(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one moment at which a token that was checked could be too old a moment later."""
    monkeypatch.setattr(leases, "GUARD_SECONDS", 0.0)
    journal = Journal(home)
    with journal.lease("night") as token, journal.holding(token):
        with pytest.raises(NightStopped, match=r"night, process \d+ .* is publishing"):
            journal.take_over("a person")
        journal.check(token)
    assert journal.take_over("a person") == token + 1
    with pytest.raises(NightBusy), journal.holding(token):
        raise AssertionError("made visible by an owner that was overtaken")


def test_of_many_that_start_at_once_exactly_one_holds_the_home(home: Path, nights: list[Night]) -> None:
    nights.extend(Night(home, f"night {number}") for number in range(10))
    said = [night.says() for night in nights]
    [holder] = [night for night, words in zip(nights, said, strict=True) if words == "holds 1"]
    others = [night for night in nights if night is not holder]
    assert [night.process.wait(timeout=60) for night in others] == [NightBusy.exit_code] * 9
    told = [words for words in said if words.startswith("NightBusy another night is running")]
    assert len([words for words in told if f", process {holder.process.pid} on" in words]) == 9


def test_a_takeover_between_the_lock_and_its_check_is_noticed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock that was got is on a file without a name: the next is taken instead."""
    journal, real, overtaken = Journal(home), leases.fcntl.flock, []

    def flock(file: int, kind: int) -> None:
        real(file, kind)
        if not overtaken and str(getattr(file, "name", "")).endswith("lease.lock"):
            overtaken.append(journal.take_over("a person"))

    monkeypatch.setattr(leases.fcntl, "flock", flock)
    with journal.lease("night") as token:
        assert (overtaken, token) == ([1], 2)
        assert journal.is_held()


def test_a_record_is_published_under_the_newest_token_alone(home: Path) -> None:
    journal = Journal(home)
    with journal.lease("night") as token:
        journal.take_over("a person")
        working = journal.working_folder("split", FIRST, resumable=False)
        with pytest.raises(NightBusy):
            journal.publish(working, stage_record(journal.stage_folder("split", FIRST), key=FIRST), token)
    assert journal.finished("split", FIRST) is None


@pytest.mark.parametrize("error", [None, FileNotFoundError("renamed"), NightStopped("too bad"), KeyboardInterrupt()])
def test_a_night_that_was_overtaken_leaves_its_run_as_it_is(home: Path, error: BaseException | None) -> None:
    """Whatever else ends it: the run is the new owner's by then, and so are the folders that it stumbles over."""
    tracker, journal = DictTracker("night"), Journal(home)
    with journal.lease("night") as token:
        night = SimpleNamespace(
            journal=journal, token=token, run_id="night", store=SimpleNamespace(tracker=lambda _: tracker)
        )
        journal.take_over("a person")
        by_a_person = isinstance(error, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt if by_a_person else NightBusy), ending_as_it_ended(night):
            if error:
                raise error
    assert tracker.status == DictTracker("").status
