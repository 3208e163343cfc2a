"""A process is found again by number and start, whatever happens to the clock."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from tasks import alive
from tasks.alive import Mark


def test_a_running_process_is_found_and_an_ended_one_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        mark = Mark.of(child.pid)
        assert mark.process() == psutil.Process(child.pid)
        child.kill()
        child.wait()
    assert mark.process() is None


@pytest.mark.parametrize("change", [{"started": -100.0}, {"boot": "another start of the machine"}])
def test_a_later_process_of_the_same_number_is_another(change: dict[str, object]) -> None:
    mark = replace(Mark.of(), **change)
    assert mark.process() is None
    assert mark.began_before(psutil.Process()) == ("boot" not in change)


@pytest.mark.parametrize("step_seconds", [-7_200.0, 3_600.0])
def test_a_clock_that_is_stepped_changes_nothing(step_seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system tells the start of a process by the clock of now: with another clock it is another time."""
    mark = Mark.of()
    real = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) + step_seconds)
    assert mark.process() is not None


def test_marks_of_systems_without_a_boot_id_go_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "boot_id", lambda: "")
    mark = Mark.of()
    assert (mark.boot, mark.process() is not None) == ("", True)
    assert mark.started == psutil.Process().create_time()
    assert replace(mark, started=mark.started - 100).process() is None
