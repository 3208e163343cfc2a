"""What is in the spool stays until it is delivered, as it was when it was reported."""

from __future__ import annotations

import os
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.tracking import spool as module
from tasks.tracking.spool import CALLS, IDS, PROGRESS, Spool, append_line, whole_lines


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def values(spool: Spool, run_id: str = "run") -> list[object]:
    return [call.values["n"] for call in spool.pending(run_id)]


def report(spool: Spool, *numbers: int, run_id: str = "run") -> None:
    for n in numbers:
        spool.append(run_id, "tags", {"n": n})


def test_calls_wait_in_order_until_they_are_delivered(spool: Spool) -> None:
    report(spool, 1, 2, 3)
    report(spool, 4, run_id="other")
    assert spool.runs() == ["other", "run"]
    assert (spool.waiting(), spool.waiting("run"), spool.waiting("nobody's")) == (4, 3, 0)
    first, second, _ = spool.pending("run")
    spool.delivered("run", first, closed=False)
    assert values(spool) == [2, 3]
    report(spool, 5)
    spool.delivered("run", second, closed=False)
    assert values(Spool(spool.folder)) == [3, 5], "another process goes on there"


def test_numbers_come_back_as_they_were(spool: Spool) -> None:
    numbers = {"a": 0.1 + 0.2, "b": float("inf"), "c": float("nan"), "d": -0.0, "e": 5e-324, "Ünïcode\n": 1.0}
    spool.append("run", "metrics", {"step": 1, "values": numbers})
    [call] = spool.pending("run")
    assert repr(call.values["values"]) == repr(numbers)


@given(cut=st.integers(1, 200))
def test_a_kill_in_the_middle_of_a_line_costs_that_line_alone(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool"))
    report(spool, 1, 2)
    path = spool.folder / "run" / CALLS
    whole = path.read_bytes()
    last = len(whole) - whole[:-1].rfind(b"\n") - 1
    os.truncate(path, len(whole) - min(cut, last))
    report(spool, 3)
    assert values(spool) == ([1, 2, 3] if cut == 1 else [1, 3]), "a line that lacks its end alone is whole"
    for call in list(spool.pending("run")):
        spool.delivered("run", call, closed=False)
    assert values(spool) == []
    report(spool, 4)
    assert values(spool) == [4]


def test_garbage_between_lines_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, {"n": 1})
    with path.open("ab") as stream:
        stream.write(b"\0\0\0\xff\n[1, 2]\n\n")
    append_line(path, {"n": 2})
    assert [content for content, _ in whole_lines(path)] == [{"n": 1}, {"n": 2}]


def test_an_artifact_is_delivered_as_it_was(spool: Spool, tmp_path: Path) -> None:
    """The stage folder is renamed when it is published, its reports are written again, and anybody may delete it."""
    stage = tmp_path / "stage.partial"
    (stage / "model" / "deep").mkdir(parents=True)
    (stage / "report.md").write_text("first")
    (stage / "model" / "deep" / "weights").write_text("weights")
    spool.append("run", "artifact", {"folder": ""}, stage / "report.md")
    (stage / "report.md").write_text("second")
    spool.append("run", "artifact", {"folder": ""}, stage / "report.md")
    spool.append("run", "artifact", {"folder": ""}, stage / "model")
    stage.rename(tmp_path / "stage")
    (tmp_path / "stage" / "model" / "deep" / "weights").unlink()
    calls = list(spool.pending("run"))
    files = [spool.file_of("run", call) for call in calls]
    assert [file.name for file in files] == ["report.md", "report.md", "model"]
    assert [file.read_text() for file in files[:2]] == ["first", "second"]
    assert (files[2] / "deep" / "weights").read_text() == "weights"
    spool.delivered("run", calls[0], closed=False)
    assert [file.exists() for file in files] == [False, True, True]


def test_large_files_are_linked_where_that_is_possible(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COPIED_BYTES", 3)
    for name, content in (("small", b"123"), ("large", b"1234")):
        (tmp_path / name).write_bytes(content)
        spool.append("run", "artifact", {"folder": ""}, tmp_path / name)
    small, large = (spool.file_of("run", call) for call in spool.pending("run"))
    assert not small.samefile(tmp_path / "small")
    assert large.samefile(tmp_path / "large")

    def no_links(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", no_links)
    spool.append("run", "artifact", {"folder": ""}, tmp_path / "large")
    copy = spool.file_of("run", list(spool.pending("run"))[-1])
    assert not copy.samefile(tmp_path / "large")
    assert copy.read_bytes() == b"1234"


def test_a_folder_goes_when_its_run_is_closed_and_nothing_waits(spool: Spool) -> None:
    report(spool, 1, 2)
    one, two = spool.pending("run")
    spool.delivered("run", one, closed=True)
    spool.remove_if_done("run")
    assert spool.runs() == ["run"], "a call waits"
    spool.delivered("run", two, closed=False)
    spool.remove_if_done("run")
    assert spool.runs() == ["run"], "the run goes on, and so may be reopened"
    spool.note("run", logged_until=7)
    spool.delivered("run", two, closed=True)
    spool.remove_if_done("run")
    assert spool.runs() == []
    report(spool, 3)
    assert values(spool) == [3], "the offset of the folder before does not count"
    assert spool.progress("run").logged_until == 0


def test_ids_survive_a_cut_line(spool: Spool) -> None:
    report(spool, 1)
    assert spool.resolve("a") == "a"
    spool.note_id("a", "1")
    with (spool.folder / IDS).open("ab") as stream:
        stream.write(b'{"run_id": "b", "ml')
    spool.note_id("b", "2")
    assert [spool.resolve(run_id) for run_id in "abc"] == ["1", "2", "c"]


def test_threads_do_not_mix_their_lines(spool: Spool) -> None:
    threads = [Thread(target=report, args=(spool, *range(n, n + 50))) for n in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = values(spool)
    assert sorted(numbers) == [*range(50), *range(100, 150), *range(200, 250)]
    for first in (0, 100, 200):
        assert [n for n in numbers if first <= n < first + 100] == list(range(first, first + 50))


def test_calls_lost_with_the_machine_do_not_hide_later_ones(spool: Spool) -> None:
    """Delivered calls need not be on the disk, so the note of the delivery may be there without them."""
    report(spool, 1, 2)
    for call in list(spool.pending("run")):
        spool.delivered("run", call, closed=False)
    os.truncate(spool.folder / "run" / CALLS, 20)
    report(spool, 3, 4)
    assert values(spool) == [3, 4]
    (spool.folder / "run" / PROGRESS).write_bytes(b"")
    assert values(spool) == [3, 4]


def report_and_die(folder: Path) -> None:
    spool = Spool(folder)
    spool.append("run", "metrics", {"n": 1})
    spool.append("run", "metrics", {"n": 2})
    os.kill(os.getpid(), 9)


def test_calls_of_a_killed_process_stay(spool: Spool) -> None:
    process = get_context("spawn").Process(target=report_and_die, args=(spool.folder,))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert values(spool) == [1, 2]
