"""What disks do to a night, and faults of the program: each is a bounded message, with numbers and a cure."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import httpx
import pytest

from flows.__main__ import main
from tasks.errors import MESSAGE_LIMIT, DiskFault, NightStopped
from tasks.faults import disk_faults, ending, fault_of

FREE = (errno.ENOSPC, errno.EDQUOT)


def raised(error: Exception, place: Path, needed_bytes: int = 0) -> str:
    """What a person is told of an error in a home."""
    with pytest.raises(DiskFault) as told, disk_faults(place, place, (lambda: needed_bytes) if needed_bytes else None):
        raise error
    assert told.value.__cause__ is error
    assert len(str(told.value)) <= MESSAGE_LIMIT
    assert told.value.exit_code == NightStopped.exit_code
    return str(told.value)


@pytest.mark.parametrize("number", FREE)
def test_a_full_disk_is_told_with_what_is_free_and_what_is_needed(number: int, tmp_path: Path) -> None:
    path = tmp_path / "data" / "pretrain@1.partial" / "model.safetensors"
    told = raised(OSError(number, os.strerror(number), str(path)), tmp_path, needed_bytes=345_000_000)
    assert str(path) in told
    assert "MB are free there" in told
    assert "about 345.0 MB in all" in told
    assert "free some, or move the home to another disk and set NIGHTSCHOOL_HOME to it" in told


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EROFS, "Read-only file system", "at"), "read-only; mount it for writing"),
        (OSError(errno.EIO, "Input/output error", "at"), "the disk failed"),
        (PermissionError(errno.EACCES, "Permission denied", "at"), "may not read or write at"),
        (OSError(errno.EMFILE, "Too many open files", "at"), "ulimit -n"),
        (sqlite3.OperationalError("database or disk is full"), "the disk is full"),
        (RuntimeError("Io error: No space left on device (os error 28)"), "the disk is full"),
    ],
)
def test_what_else_a_disk_does_has_a_cure_of_its_own(error: Exception, words: str, tmp_path: Path) -> None:
    assert words in raised(error, tmp_path)


def test_what_it_was_raised_from_counts(tmp_path: Path) -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as full:
            raise RuntimeError("a file could not be written") from full
    except RuntimeError as error:
        fault = fault_of(error, tmp_path, tmp_path)
    assert fault is not None
    assert "the disk is full" in str(fault)


def test_a_failing_disk_alone_may_pass(tmp_path: Path) -> None:
    passing = {number: fault_of(OSError(number, "x", "at"), tmp_path, tmp_path) for number in (errno.EIO, *FREE)}
    assert [bool(fault and fault.passing) for fault in passing.values()] == [True, False, False]


def test_a_fault_of_the_program_is_one_line_that_names_its_traceback(tmp_path: Path) -> None:
    for error in (ValueError("shapes (2, 3) and (4,)"), RecursionError("too deep"), MemoryError("no memory")):
        with pytest.raises(type(error)), disk_faults(tmp_path, tmp_path):
            raise error
        message, code = ending(error, tmp_path)
        assert code == 1
        assert message.startswith(
            f"{type(error).__name__}: {error}\nThis is a fault of the program; its traceback is in"
        )
        kept = Path(message.rpartition(" ")[2])
        assert kept.is_relative_to(tmp_path / "crashes")
        assert str(error) in kept.read_text(encoding="utf-8")


@pytest.mark.parametrize(("status", "code"), [(500, 2), (503, 2), (404, 1)])
def test_a_server_that_cannot_write_is_told_as_such(status: int, code: int, tmp_path: Path) -> None:
    request = httpx.Request("POST", "http://127.0.0.1:1/api/flow_runs/")
    error = httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))
    said, ended = ending(error, tmp_path)
    assert ended == code
    assert ("ulimit -f" in said, "fault of the program" in said) == (code == 2, code == 1)


def test_the_command_line_ends_with_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "prefect" / "prefect.db"))

    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(tmp_path))
    monkeypatch.setattr("tasks.settings.prepare_process", full)
    assert main(["demo"]) == 2
    said = capsys.readouterr().err
    assert "the disk is full" in said
    assert "the same command goes on" in said
    assert "Traceback" not in said
