"""Whether a process that was noted earlier still runs, told by what no change of the clock moves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
STARTED_FIELD = 19
"""Of /proc/PID/stat behind the name: ticks from the machine's start to the process's."""
TICK_SECONDS = 0.011
"""Within which two starts are one; Linux counts in hundredths."""
CLOCK_SECONDS = 1.0
"""The same for starts that are read from the clock."""


@cache
def boot_id() -> str:
    """Which start of the machine this is; empty where the system does not say."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def started(pid: int) -> float:
    """When a process began: seconds since the machine's start, or since the epoch where `boot_id` is empty.

    Raises psutil.NoSuchProcess if there is none of this number.
    """
    if not boot_id():
        return float(psutil.Process(pid).create_time())
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        raise psutil.NoSuchProcess(pid) from None
    return int(fields[STARTED_FIELD]) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Mark:
    """What tells a process from a later one with the same number, also after the machine or its clock was set anew."""

    pid: int
    started: float
    """As `started` says; since the epoch where `boot` is empty."""
    boot: str = ""

    @classmethod
    def of(cls, pid: int | None = None) -> Mark:
        """Of a running process, this one by default. Raises psutil.NoSuchProcess."""
        number = os.getpid() if pid is None else pid
        return cls(number, started(number), boot_id())

    def process(self) -> psutil.Process | None:
        """The process, or None if it has ended."""
        try:
            process = psutil.Process(self.pid)
            alive = process.status() != psutil.STATUS_ZOMBIE and self.began_with(process)
        except psutil.Error:
            return None
        return process if alive else None

    def began_with(self, process: psutil.Process) -> bool:
        """Whether a process began when this one did."""
        if self.boot:
            return self.boot == boot_id() and abs(started(process.pid) - self.started) < TICK_SECONDS
        return bool(abs(process.create_time() - self.started) < CLOCK_SECONDS)

    def began_before(self, process: psutil.Process) -> bool:
        """Whether a process began later than this one, or at the same time."""
        if self.boot:
            return self.boot == boot_id() and started(process.pid) > self.started - CLOCK_SECONDS
        return bool(process.create_time() > self.started - CLOCK_SECONDS)
