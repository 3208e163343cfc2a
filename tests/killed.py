"""What is left of a process's children when it is killed."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable

import psutil

PATIENCE_SECONDS = 300
"""A busy machine may take so long to end a process; less than what its children would do of themselves."""


def outliving(parent: Callable[..., None], *arguments: object) -> list[psutil.Process]:
    """Children of `parent(line, *arguments)` that do not end with it; they are ended here.

    `parent` runs in a process of its own, so it must be importable. It sends the ids of its children over `line` and
    then waits for something to come, which is the end.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=parent, args=(theirs, *arguments))
    process.start()
    theirs.close()
    try:
        children = [psutil.Process(pid) for pid in ours.recv()]
    finally:
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL, "it ended before it was killed"
    assert children
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
    for child in alive:
        child.kill()
    return alive
