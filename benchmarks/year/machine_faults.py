"""Faults of the machine: a full disk, missed nights, two at once, a stopped owner, a kill, a damaged checkpoint."""

from __future__ import annotations

import errno
import os
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path
from unittest import mock

from benchmarks.year.data_faults import HOUR, lines_read
from benchmarks.year.finding import Finding, Year
from benchmarks.year.home import Ended
from tasks.errors import NightBusy
from tasks.night.report import NightReport
from tasks.tracking.versions import CHALLENGER, CHAMPION, PREVIOUS

MISSED = 5
STEPPED_BACK = timedelta(hours=3)


def disk_full(year: Year, at: datetime) -> Finding:
    """The disk takes no more bytes somewhere in the night; with room again, the same night goes on."""
    wrong: list[str] = []
    year.deliver(at)
    left, real = int(year.rng.integers(40, 300)), os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with mock.patch("os.fsync", fsync):
        stopped = year.stopped_night(at, wrong, "the disk was full")
    done = {path.name for path in year.home.home.glob("data/*@*") if (path / "record.json").exists()}
    after = year.good_night(at + HOUR, wrong, "the night with room on the disk")
    if isinstance(after.came, NightReport):
        again = [r.name for r in after.came.records if r.path.name in done and not r.reused]
        wrong += [f"{name} was finished and is done again" for name in again]
    return Finding(message=stopped.sentence("the disk is full"), wrong=tuple(wrong))


def missed_nights(year: Year, at: datetime) -> Finding:
    """The machine slept for five nights, whose rows one night reads; then the clock goes back by hours."""
    wrong: list[str] = []
    before = lines_read(year)
    for day in range(MISSED):
        year.deliver(at + timedelta(days=day), 0.5)
    delivered = sum(year.home.lines.values()) - before
    year.slept += timedelta(days=MISSED)
    at += timedelta(days=MISSED)
    after = year.good_night(at, wrong, "the night after five missed ones")
    if lines_read(year) - before != delivered:
        wrong.append(f"{lines_read(year) - before} lines were read, {delivered} were new")
    year.deliver(at)
    year.good_night(at - STEPPED_BACK, wrong, "the night after the clock went back")
    message = after.sentence(rf"{delivered:,} of them new")
    return Finding(message=message, wrong=tuple(wrong))


def two_at_once(year: Year, at: datetime) -> Finding:
    """While a night trains, another begins: it says who holds the home, and does nothing."""
    wrong: list[str] = []
    year.deliver(at)
    since = time.time()
    with year.home.night_apart(at) as process:
        year.home.wait_until(year.home.journal.is_held, process, "the lease")
        busy = year.stopped_night(at, wrong, "another night held the home")
        if not isinstance(busy.error, NightBusy):
            wrong.append(f"the second night ended with {busy.error!r}")
        if code := process.wait():
            wrong.append(f"the night that held the home ended with code {code}: {year.home.said_apart()[-300:]}")
    year.home.date_all(at, since)
    return Finding(message=busy.sentence(f"process {process.pid}"), wrong=tuple(wrong))


def woken_owner(year: Year, at: datetime) -> Finding:
    """A night is stopped while it trains, its home is taken over, another night does the work, and it wakes up."""
    wrong: list[str] = []
    year.deliver(at)
    with year.home.night_apart(at) as process:
        year.home.wait_for("data/pretrain@*.partial/checkpoints/step-*", process)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        year.home.journal.take_over("a person")
        year.good_night(at + HOUR, wrong, "the night after the take-over")
        made = everything_public(year)
        process.send_signal(signal.SIGCONT)
        if (code := process.wait()) != NightBusy.exit_code:
            wrong.append(f"the old owner ended with code {code}, not {NightBusy.exit_code}")
    if everything_public(year) != made:
        wrong.append("the old owner published something")
    message = next(
        (line for line in year.home.said_apart().splitlines() if line.startswith("this night was overtaken")), ""
    )
    return Finding(message=message, wrong=tuple(wrong))


def killed(year: Year, at: datetime) -> Finding:
    """A night is killed in one of its stages. The same night goes on and makes the bits of one that was not."""
    stage = str(year.rng.choice(["validate", "deduplicate", "tokens", "pretrain", "sft", "evaluate"]))
    wrong: list[str] = []
    year.deliver(at)
    unbroken = bits_of_unbroken(year, at)
    with year.home.night_apart(at) as process:
        year.home.wait_for(f"data/{stage}@*.partial", process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = {path.name for path in year.home.home.glob("data/*@*") if (path / "record.json").exists()}
    after = year.good_night(at + HOUR, wrong, f"the night after a kill in {stage}")
    if isinstance(after.came, NightReport):
        again = [r.name for r in after.came.records if r.path.name in done and not r.reused]
        wrong += [f"{name} was finished and is done again" for name in again]
    if bits_of(after) != unbroken:
        wrong.append("the weights are not those of an unbroken night")
    return Finding(message=after.sentence("of a night that died"), wrong=tuple(wrong))


def damaged_checkpoint(year: Year, at: datetime) -> Finding:
    """A night is killed in training and a bit of its newest checkpoint turns: the one before it counts."""
    wrong: list[str] = []
    year.deliver(at)
    unbroken = bits_of_unbroken(year, at)
    with year.home.night_apart(at) as process:
        year.home.wait_until(lambda: len(checkpoints(year)) > 1, process, "a second checkpoint")
        process.send_signal(signal.SIGKILL)
        process.wait()
    newest = checkpoints(year)[-1]
    weights = max(newest.iterdir(), key=lambda path: path.stat().st_size)
    body = bytearray(weights.read_bytes())
    body[len(body) // 2] ^= 1
    weights.write_bytes(body)
    after = year.good_night(at + HOUR, wrong, "the night with a damaged checkpoint")
    if bits_of(after) != unbroken:
        wrong.append("the weights are not those of an unbroken night")
    return Finding(message=after.sentence(rf"{newest.name}.*damaged"), wrong=tuple(wrong))


def bits_of_unbroken(year: Year, at: datetime) -> str:
    """What tonight's training makes if nothing breaks it: found out in a copy of the home."""
    with year.home.copied() as copy:
        return bits_of(copy.night(at))


def bits_of(ended: Ended) -> str:
    """The digest of a night's final weights; of a night that made none, why."""
    if not isinstance(ended.came, NightReport):
        return f"none: {ended.said[-1]}"
    return next(record.digest for record in ended.came.records if record.name == "sft")


def checkpoints(year: Year) -> list[Path]:
    """Of the pretraining under way, oldest first."""
    return sorted(year.home.home.glob("data/pretrain@*.partial/checkpoints/step-*"))


def everything_public(year: Year) -> tuple[object, ...]:
    """What others see of a home: finished folders, versions, aliases."""
    registry = year.home.registry
    folders = sorted(p.name for p in year.home.home.glob("data/*@*") if (p / "record.json").exists())
    aliases = [registry.version_of(alias) for alias in (CHAMPION, CHALLENGER, PREVIOUS)]
    return folders, registry.versions(), aliases
