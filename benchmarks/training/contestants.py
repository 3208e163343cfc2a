"""Contestants in processes of their own, as they have where they are used, that work when they are asked to.

In a common process they drive each other's kernels out of oneDNN's cache. All stay in memory until the end.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil
import torch

from tasks.planning.machine import keep_freed_memory


@dataclass(frozen=True)
class Work:
    """What one call of a contestant took."""

    result: Any
    seconds: float
    held_bytes: int
    """Private memory after it."""


Contestant = Callable[..., Work]


def work_on_demand(line: Connection, threads: int, build: Callable[..., Callable[..., Any]], *arguments: Any) -> None:
    """In a process: call what `build` makes with each tuple of arguments that comes over the line."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    worker = build(*arguments)
    while True:
        given = line.recv()
        started = time.perf_counter()
        result = worker(*given)
        seconds = time.perf_counter() - started
        memory = psutil.Process().memory_info()
        line.send(Work(result, seconds, memory.rss - memory.shared))


@contextmanager
def contestant(name: str, build: Callable[..., Callable[..., Any]], *arguments: Any) -> Iterator[Contestant]:
    """A process with what `build` makes there of these arguments; both must be picklable, and so what goes to and fro.

    It has as many threads as this process. A call ends the benchmark if the process is gone.
    """
    context = multiprocessing.get_context("spawn")
    line, far_end = context.Pipe()
    process = context.Process(target=work_on_demand, args=(far_end, torch.get_num_threads(), build, *arguments))
    process.start()
    far_end.close()

    def call(*given: Any) -> Work:
        try:
            line.send(given)
            work: Work = line.recv()
        except (EOFError, OSError):
            raise SystemExit(
                f"{name} ended at its work; its words are above, if memory ran out ask for fewer --ways"
            ) from None
        return work

    try:
        yield call
    finally:
        process.terminate()  # first, or it would wonder at a closed line
        process.join()
        line.close()
