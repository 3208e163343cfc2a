"""A training stage over several processes of one machine: this one is rank 0, the others are its own and end with it.

They only train: rank 0 logs, validates, saves and publishes. They meet through a file in the stage's logs folder.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from data.workers import become_worker
from model.config.phases import phase_after
from model.parallel.ranks import ALONE, RankLost, Ranks, RanksDiffer, meet
from model.training.state import NonFiniteLoss
from model.training.trainer import train
from tasks.errors import NightStopped
from tasks.home.contents.packed import open_packed
from tasks.planning.machine import best_device, keep_freed_memory
from tasks.training.start import Start
from tasks.training.validator import Validator

FOLDER, MEETING = "ranks", "meeting"
PATIENCE = timedelta(minutes=10)
"""How long ranks wait for one that lives but does not answer: longer than rank 0 takes to validate and to save."""
BLAME_SECONDS = 5.0
"""How long rank 0 looks for the one that ended first; a dead process is seen at once."""
LOST = 75
"""Exit code of a rank that lost another: it is not the one to blame."""


@dataclass(frozen=True)
class Other:
    """Another rank, as rank 0 sees it."""

    rank: int
    process: SpawnProcess
    line: Connection
    """It says when it is ready; when rank 0 closes it, the rank ends."""
    note: Path
    """What it writes if it fails."""

    def end(self) -> None:
        """Nothing is lost: what it holds, rank 0 holds too."""
        self.line.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


@contextmanager
def company(start: Start, logs: Path) -> Iterator[Ranks]:
    """The ranks of a stage, the others started and loaded; none of them outlives the context.

    Raises NightStopped, naming the rank, if one ends before this context does.
    """
    count, threads = start.config.num_ranks, torch.get_num_threads()
    if count == 1:
        yield ALONE
        return
    require_devices(count)
    folder = logs / FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # a meeting of ranks that were killed is no use to others
    folder.mkdir()
    others: list[Other] = []
    torch.set_num_threads(max(1, threads // count))
    try:
        with stops_blocked():
            for rank in range(1, count):
                others.append(start_other(rank, start, folder))
        wait_for(others)
        yield meet(folder / MEETING, 0, count, best_device(), PATIENCE)
    except RankLost as error:
        raise NightStopped(
            f"{start.stage}: {blamed(others, count)}; the last checkpoint is kept, run the same again to go on"
        ) from error
    except RanksDiffer as error:
        raise NightStopped(f"{start.stage}: {error}") from error
    finally:
        for other in others:
            other.end()
        torch.set_num_threads(threads)


def require_devices(count: int) -> None:
    """A GPU for each rank, where there are GPUs."""
    if best_device().type == "cuda" and torch.cuda.device_count() < count:
        raise NightStopped(
            f"num_ranks ({count}) is more than the {torch.cuda.device_count()} GPUs of this machine; lower num_ranks"
        )


@contextmanager
def stops_blocked() -> Iterator[None]:
    """Processes that are started in it leave Ctrl-C and SIGTERM to this one from their first moment on."""
    resource_tracker.ensure_running()  # it would unblock them when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_other(rank: int, start: Start, folder: Path) -> Other:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    note = folder / f"rank-{rank}.log"
    arguments = (rank, start, folder, theirs, note, os.getpid(), torch.get_num_threads())
    process = context.Process(target=be_rank, args=arguments, daemon=True)
    process.start()
    theirs.close()
    return Other(rank, process, ours, note)


def wait_for(others: Sequence[Other]) -> None:
    """Until all are ready; RankLost if one ends first."""
    deadline = time.monotonic() + PATIENCE.total_seconds()
    for other in others:
        try:
            if not other.line.poll(max(0.0, deadline - time.monotonic())):
                raise RankLost(f"rank {other.rank} did not start")
            other.line.recv()
        except (EOFError, OSError) as error:
            raise RankLost(f"rank {other.rank} ended as it started") from error


def blamed(others: Sequence[Other], count: int) -> str:
    """Which rank ended, and of what; those that only lost another are not named."""
    deadline = time.monotonic() + BLAME_SECONDS
    while True:
        for other in others:
            if other.process.exitcode not in (None, LOST):
                return f"rank {other.rank} of {count} {how_it_ended(other)}"
        running = [other.process.sentinel for other in others if other.process.exitcode is None]
        if not running or not wait(running, max(0.0, deadline - time.monotonic())):
            return f"one of {count} ranks did not answer within {PATIENCE.total_seconds():.0f} s"


def how_it_ended(other: Other) -> str:
    code = other.process.exitcode or 0
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}; if nobody did that, memory may have run out"
    told = other.note.read_text().strip().splitlines() if other.note.exists() else []
    return f"ended with code {code}" + (f": {told[-1][:400]} ({other.note})" if told else "")


def be_rank(
    rank: int, start: Start, folder: Path, line: Connection, note: Path, owner: int, threads: int
) -> None:  # fmt: skip
    """All that another rank does; it ends when rank 0 does, or closes the line."""
    become_worker(owner)
    keep_freed_memory()
    torch.set_num_threads(threads)
    if best_device().type == "cuda":
        torch.cuda.set_device(rank)
    try:
        follow(rank, start, folder, line)
    except RankLost:
        sys.exit(LOST)
    except BaseException:
        note.write_text(traceback.format_exc())
        sys.exit(1)


def follow(rank: int, start: Start, folder: Path, line: Connection) -> None:
    """Train as rank 0 does, change experts where it does, and wait for it to end."""
    tokens = open_packed(start.tokens, start.kind, "train")
    validator = Validator.open(start.tokens, start.kind, start.config) if start.config.expert_changes else None
    state = start.state(tokens)
    found = start.phases(start.config.num_steps(tokens.sequence_length_tokens))
    line.send(rank)
    ranks = meet(folder / MEETING, rank, start.config.num_ranks, best_device(), PATIENCE)
    with suppress(NonFiniteLoss):  # rank 0 has met it in the same step, and says so
        for step in train(state, tokens, start.config, ranks):
            phase = phase_after(found, step.number)
            if validator is not None and phase.first_step == step.number:
                start.change(state, phase, validator)
    with suppress(EOFError, OSError):
        line.recv()
