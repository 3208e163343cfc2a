"""Work over processes: results come in the order of the jobs, whatever the number of workers."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
POOL_PAYS_BYTES = 64 << 20
"""Below this a pool costs more than it saves."""


def default_workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def become_worker(owner: int) -> None:
    """Leave Ctrl-C to the owner, and end with it, however it ends (Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with, args=(owner,), daemon=True).start()


def end_with(owner: int) -> None:
    """Wait for the end of a process, then end this one. Does nothing where the system has no process descriptors."""
    try:
        select.select([os.pidfd_open(owner)], [], [])
    except (AttributeError, PermissionError):
        return
    except OSError:  # it has ended already
        pass
    os._exit(1)


def run_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], num_bytes: int, workers: int | None = None
) -> Iterator[Result]:
    """`work` of every job, in order; in processes if there is enough to do. `work` must be importable."""
    count = min(default_workers() if workers is None else workers, len(jobs))
    if count <= 1 or num_bytes < POOL_PAYS_BYTES:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("forkserver")  # to fork this process, threads and all, could hang the child
    context.set_forkserver_preload([work.__module__])  # imported once, where workers are forked from
    pool = ProcessPoolExecutor(count, context, initializer=become_worker, initargs=(os.getpid(),))
    try:
        yield from pool.map(work, jobs)
    except BaseException:
        for process in list(pool._processes.values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
