"""Time and memory of a call or a command: it runs in a fresh process, whose whole process tree is sampled.

Memory is the sum of `RssAnon` over the tree: pages that only these processes can own. Pages of mapped files
(`RssFile`) belong to the page cache, which gives them back under pressure, and are reported apart; so is shared
memory (`RssShmem`). Pages that forked processes still share count once in each of them, so trees that fork look
larger than they are; `peak_proportional_bytes`, sampled less often as it costs more, divides such pages.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
INTERVAL_SECONDS = 0.02
PROPORTIONAL_EVERY = 10
STATUS = re.compile(rb"^(RssAnon|RssFile|RssShmem):\s+(\d+) kB", re.MULTILINE)
PROPORTIONAL = re.compile(rb"^(Pss_Anon):\s+(\d+) kB", re.MULTILINE)
WRITTEN = re.compile(rb"^(write_bytes): (\d+)", re.MULTILINE)
ERROR_CHARACTERS_KEPT = 2_000


class ChildFailed(Exception):
    """The measured process failed; the message holds its exit code and the end of its output."""


@dataclass(frozen=True)
class Usage:
    """Time, memory and writes of one process tree. Memory is the highest sample of the sum over the tree, in bytes."""

    seconds: float
    """Of the call itself, without the interpreter's start and the imports; of a command, start to exit."""
    wall_seconds: float
    cpu_seconds: float
    """User and system time of the tree."""
    peak_anonymous_bytes: int
    peak_proportional_bytes: int
    peak_file_bytes: int
    peak_shared_bytes: int
    written_bytes: int
    """To storage; what was truncated before it got there included."""
    result: Any = None
    """What the call returned; None for a command."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def numbers_in(path: str, pattern: re.Pattern[bytes]) -> dict[str, int]:
    """Numbers of a file of /proc by name; nothing if the process is gone."""
    try:
        return {name.decode(): int(number) for name, number in pattern.findall(Path(path).read_bytes())}
    except OSError:
        return {}


def tree_of(pid: int) -> Iterator[int]:
    """Ids of a process and its descendants; any of them may end meanwhile."""
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return
    for thread in threads:
        try:
            children = (thread / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from tree_of(int(child))


def sample(pid: int, with_proportional: bool) -> dict[str, int]:
    """Sums over the tree now, in bytes."""
    sums: dict[str, int] = {}
    for process in tree_of(pid):
        kilobytes_by_name = numbers_in(f"/proc/{process}/status", STATUS)
        if with_proportional:
            kilobytes_by_name |= numbers_in(f"/proc/{process}/smaps_rollup", PROPORTIONAL)
        for name, kilobytes in kilobytes_by_name.items():
            sums[name] = sums.get(name, 0) + kilobytes * 1024
    return sums


def watch(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Usage:
    """Run a command to its end. Raises ChildFailed if it does not exit with 0."""
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment and dict(environment), stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            peaks = peaks_until_exit(process.pid)
            wall = time.perf_counter() - started
            written = numbers_in(f"/proc/{process.pid}/io", WRITTEN)  # of a process not yet reaped: final, and whole
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # none of its descendants outlives it
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            end = output.read().decode(errors="replace").strip()[-ERROR_CHARACTERS_KEPT:]
            raise ChildFailed(f"exit code {process.returncode} of {' '.join(command)}\n{end}")
    return Usage(
        seconds=wall,
        wall_seconds=wall,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_anonymous_bytes=peaks.get("RssAnon", 0),
        peak_proportional_bytes=peaks.get("Pss_Anon", 0),
        peak_file_bytes=peaks.get("RssFile", 0),
        peak_shared_bytes=peaks.get("RssShmem", 0),
        written_bytes=written.get("write_bytes", 0),
    )


def peaks_until_exit(pid: int) -> dict[str, int]:
    """The highest sample of each sum; returns when the process has ended, and leaves it to be reaped."""
    peaks: dict[str, int] = {}
    ended = os.pidfd_open(pid)
    try:
        for number in range(sys.maxsize):
            for name, value in sample(pid, number % PROPORTIONAL_EVERY == 0).items():
                peaks[name] = max(peaks.get(name, 0), value)
            if select.select([ended], [], [], INTERVAL_SECONDS)[0]:
                break
    finally:
        os.close(ended)
    return peaks


def measure(target: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Usage:
    """Call `module:function` with the arguments, all strings, in a fresh process.

    The clock starts after the module is imported. What the function returns must be JSON. Raises ChildFailed
    if the call fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        usage = watch([sys.executable, "-m", "benchmarks.memory", str(answer), target, *arguments], environment)
        call = json.loads(answer.read_text())
    return Usage(**usage.as_dict() | {"seconds": call["seconds"], "result": call["result"]})


def answer_call(answer: Path, target: str, arguments: Sequence[str]) -> None:
    """The child's side of `measure`."""
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    started = time.perf_counter()
    result = function(*arguments)
    seconds = time.perf_counter() - started
    answer.write_text(json.dumps({"seconds": seconds, "result": result}))


if __name__ == "__main__":
    answer_call(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
