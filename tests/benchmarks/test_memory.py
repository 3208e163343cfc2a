"""Time, memory and writes of a process tree, sampled from outside."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.memory import WRITTEN, ChildFailed, measure, watch

HOLD = "held = bytearray(b'x') * {size}; import select; select.select([], [], [], 0.5)"
SIZE = 120_000_000


def test_memory_is_that_of_the_whole_tree() -> None:
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD.format(size=SIZE)!r}], check=True)"
    usage = watch([sys.executable, "-c", parent])
    assert SIZE < usage.peak_anonymous_bytes < 2 * SIZE
    assert usage.peak_proportional_bytes <= usage.peak_anonymous_bytes
    assert usage.peak_file_bytes > 0
    assert usage.wall_seconds >= 0.5


def test_mapped_files_do_not_count_as_memory(tmp_path: Path) -> None:
    path = tmp_path / "mapped"
    path.write_bytes(b"x" * SIZE)
    code = (
        f"import mmap, select; f = open({str(path)!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); "
        "sum(m[i] for i in range(0, len(m), 4096)); select.select([], [], [], 0.3)"
    )
    usage = watch([sys.executable, "-c", code])
    assert usage.peak_file_bytes > SIZE
    assert usage.peak_anonymous_bytes < SIZE / 2


def test_bytes_written_by_children_count(tmp_path: Path) -> None:
    before = WRITTEN.findall(Path("/proc/self/io").read_bytes())
    with (tmp_path / "probe").open("wb") as probe:
        probe.write(b"x" * 4096)
        probe.flush()
        os.fdatasync(probe.fileno())
    if WRITTEN.findall(Path("/proc/self/io").read_bytes()) == before:
        pytest.skip("writes to this file system reach no storage")
    path = str(tmp_path / "out")
    write = f"import os; f = open({path!r}, 'wb'); f.write(b'x' * 5_000_000); f.flush(); os.fsync(f.fileno())"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {write!r}], check=True)"
    assert watch([sys.executable, "-c", parent]).written_bytes >= 5_000_000


def test_a_call_comes_back_with_its_result() -> None:
    usage = measure("os.path:join", "a", "b")
    assert usage.result == "a/b"
    assert 0 <= usage.seconds < usage.wall_seconds


def test_the_environment_is_the_child_s() -> None:
    assert measure("os:getenv", "ONLY_HERE", environment={"ONLY_HERE": "yes"}).result == "yes"


def test_a_failure_carries_the_output_of_the_child() -> None:
    with pytest.raises(ChildFailed, match=r"exit code 1(.|\n)*ModuleNotFoundError"):
        measure("no_such_module:f")
