"""A training stage over several processes of one machine: this one is rank 0, the others end with it.

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
from model.parallel.ranks import ALONE, RankLost, Ranks, RanksDiffer, meet
from model.training.state import NonFiniteLoss
from model.training.trainer import train
from tasks.errors import NightStopped
from tasks.planning.machine import best_device, keep_freed_memory
from tasks.training.start import TrainingStart, open_rows, phase_beginning_at
from tasks.training.validator import Validator

FOLDER, MEETING = "ranks", "meeting"
RANK_TIMEOUT = timedelta(minutes=10)
"""How long ranks wait for one that lives but does not answer: longer than rank 0 takes to validate and to save."""
EXIT_CODE_SECONDS = 60.0
"""How long rank 0 waits for the exit code of the rank that ended first: a busy machine takes a while to end one."""
REASON_CHARACTERS = 200
LOST_ANOTHER = 75
"""Exit code of a rank that ended because another did."""


@dataclass(frozen=True)
class RankProcess:
    """Another rank, as rank 0 sees it."""

    rank: int
    process: SpawnProcess
    connection: Connection
    """The rank sends its number when it is loaded; when rank 0 closes the connection, the rank ends."""
    error_file: Path
    """Where it writes its traceback if it fails."""

    def end(self) -> None:
        """Kill it. Nothing is lost: rank 0 holds the same state."""
        self.connection.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


@contextmanager
def rank_processes(start: TrainingStart, logs: Path) -> Iterator[Ranks]:
    """The ranks of a stage, the others started and loaded; none of them outlives the context.

    Raises NightStopped, naming the rank, if one ends before this context does.
    """
    count, threads = start.config.num_ranks, torch.get_num_threads()
    if count == 1:
        yield ALONE
        return
    require_devices(count)
    folder = logs / FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # a meeting file of killed ranks would let nobody meet
    folder.mkdir()
    others: list[RankProcess] = []
    torch.set_num_threads(max(1, threads // count))
    try:
        with stop_signals_blocked():
            for rank in range(1, count):
                others.append(start_rank(rank, start, folder))
        wait_until_loaded(others)
        yield meet(folder / MEETING, 0, count, best_device(), RANK_TIMEOUT)
    except RankLost as error:
        lost = lost_rank(others, count, error)
        raise NightStopped(
            f"{start.stage}: {lost}; the last checkpoint is kept, run the same again to go on"
        ) from error
    except RanksDiffer as error:
        raise NightStopped(f"{start.stage}: {error}") from error
    finally:
        for other in others:
            other.end()
        torch.set_num_threads(threads)


def require_devices(count: int) -> None:
    """A GPU for each of `count` ranks, where there are GPUs. Raises NightStopped if there are too few."""
    if best_device().type == "cuda" and torch.cuda.device_count() < count:
        raise NightStopped(
            f"num_ranks ({count}) is more than the {torch.cuda.device_count()} GPUs of this machine; lower num_ranks"
        )


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Processes that are started in it leave Ctrl-C and SIGTERM to this one from their first moment on."""
    resource_tracker.ensure_running()  # it would unblock them when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_rank(rank: int, start: TrainingStart, folder: Path) -> RankProcess:
    """Start the process of a rank, which loads and then waits in `folder` to meet the others."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    error_file = folder / f"rank-{rank}.log"
    arguments = (rank, start, folder, theirs, error_file, os.getpid(), torch.get_num_threads())
    process = context.Process(target=run_rank, args=arguments, daemon=True)
    process.start()
    theirs.close()
    return RankProcess(rank, process, ours, error_file)


def wait_until_loaded(others: Sequence[RankProcess]) -> None:
    """Wait until every rank has loaded its state; RankLost if one ends first."""
    deadline = time.monotonic() + RANK_TIMEOUT.total_seconds()
    for other in others:
        try:
            if not other.connection.poll(max(0.0, deadline - time.monotonic())):
                raise RankLost(f"rank {other.rank} did not start")
            other.connection.recv()
        except (EOFError, OSError) as error:
            raise RankLost(f"rank {other.rank} ended as it started") from error


def lost_rank(others: Sequence[RankProcess], count: int, error: RankLost) -> str:
    """Which rank ended, and why, as part of a message; those that only lost another are not named.

    Where none of `others` ends in EXIT_CODE_SECONDS, the message is that of `error`.
    """
    deadline = time.monotonic() + EXIT_CODE_SECONDS
    while True:
        # read before the exit codes are: a rank that ends in between is then found by one of the two
        running = [other.process.sentinel for other in others if other.process.exitcode is None]
        for other in others:
            if other.process.exitcode not in (None, LOST_ANOTHER):
                return f"rank {other.rank} of {count} {cause_of_end(other)}"
        if not running or not wait(running, max(0.0, deadline - time.monotonic())):
            return (
                f"one of {count} ranks was lost and has not ended: {' '.join(str(error).split())[:REASON_CHARACTERS]}"
            )


def cause_of_end(other: RankProcess) -> str:
    """The signal, or the exit code with the last line of the traceback."""
    code = other.process.exitcode or 0
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}; if nobody did that, memory may have run out"
    lines = other.error_file.read_text().strip().splitlines() if other.error_file.exists() else []
    return f"ended with code {code}" + (f": {lines[-1][:400]} ({other.error_file})" if lines else "")


def run_rank(
    rank: int, start: TrainingStart, folder: Path, connection: Connection, error_file: Path, owner: int, threads: int
) -> None:  # fmt: skip
    """The whole life of another rank's process; it ends when rank 0 does, or closes the connection.

    folder: where the ranks meet; owner: process id of rank 0; threads: of torch in this process.
    The others are as in `RankProcess`.
    """
    become_worker(owner)
    keep_freed_memory()
    torch.set_num_threads(threads)
    if best_device().type == "cuda":
        torch.cuda.set_device(rank)
    try:
        train_beside_rank_0(rank, start, folder, connection)
    except RankLost:
        sys.exit(LOST_ANOTHER)
    except BaseException:
        error_file.write_text(traceback.format_exc())
        sys.exit(1)


def train_beside_rank_0(rank: int, start: TrainingStart, folder: Path, connection: Connection) -> None:
    """Train as rank 0 does, change experts where it does, and wait for it to end.

    The parameters are those of `run_rank`.
    """
    tokens, _ = open_rows(start.tokens, start.kind, start.config)
    validator = Validator.open(start.tokens, start.kind, start.config) if start.config.expert_changes else None
    state = start.create_state(tokens)
    phases = start.phases(start.config.num_steps(tokens.sequence_length_tokens))
    connection.send(rank)
    ranks = meet(folder / MEETING, rank, start.config.num_ranks, best_device(), RANK_TIMEOUT)
    with suppress(NonFiniteLoss):  # rank 0 meets it in the same step, and reports it
        for step in train(state, tokens, start.config, ranks, start.replay):
            phase = phase_beginning_at(phases, step.number)
            if validator is not None and phase is not None:
                start.change_experts(state, phase, validator)
    with suppress(EOFError, OSError):
        connection.recv()
