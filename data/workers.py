"""Work over processes: results come in the order of the jobs, whatever the number of workers."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
POOL_PAYS_BYTES = 64 << 20
"""Below this a pool costs more than it saves."""
PRELOADED = ("data.scan", "data.sides", "data.tokenise")
"""Imported once, in the process that workers are forked from."""


def default_workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def become_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it, however it ends (Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def run_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], num_bytes: int, workers: int | None = None
) -> Iterator[Result]:
    """`work` of every job, in order; in processes if there is enough to do. `work` must be importable."""
    count = min(default_workers() if workers is None else workers, len(jobs))
    if count <= 1 or num_bytes < POOL_PAYS_BYTES:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("forkserver")  # to fork this process, threads and all, could hang the child
    context.set_forkserver_preload(list(PRELOADED))
    pool = ProcessPoolExecutor(count, context, initializer=become_worker)
    try:
        yield from pool.map(work, jobs)
    except BaseException:
        for process in list(pool._processes.values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
