"""Implementations to compare, each in a process of its own that does one call when it is asked to.

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
    """Result and cost of one call of a contestant."""

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
        call_arguments = line.recv()
        started = time.perf_counter()
        result = worker(*call_arguments)
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

    def call(*call_arguments: Any) -> Work:
        try:
            line.send(call_arguments)
            work: Work = line.recv()
        except (EOFError, OSError):
            raise SystemExit(
                f"{name}: its process ended during a call; its output is above. If memory ran out, name fewer --ways"
            ) from None
        return work

    try:
        yield call
    finally:
        process.terminate()  # before the line is closed, which would be an error in it
        process.join()
        line.close()
