"""What a process says goes on having somewhere to go."""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
import threading
from functools import cache

log = logging.getLogger("nightschool")


@cache
def outlive_reader() -> threading.Thread | None:
    """Have this process go on when what reads its output ends: a worker that is killed, a `head`, a closed terminal.

    Else the next line that is written to the pipe ends a night of hours. Returns the thread that waits for it, None if
    nothing reads our output through a pipe. Once a process.
    """
    pipes = [fd for fd in (sys.__stdout__, sys.__stderr__) if fd is not None]
    numbers = [number for number in {stream.fileno() for stream in pipes} if stat.S_ISFIFO(os.fstat(number).st_mode)]
    if not numbers:
        return None
    thread = threading.Thread(target=redirect_when_closed, args=(numbers,), daemon=True)
    thread.start()
    return thread


def forget_output_if_unread() -> bool:
    """Have standard output lead nowhere if its reader has left, which Python would report at its exit.

    Returns whether it has.
    """
    if sys.__stdout__ is None:
        return False
    poll, number = select.poll(), sys.__stdout__.fileno()
    poll.register(number, 0)
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return True


def redirect_when_closed(numbers: list[int]) -> None:
    """Wait until the pipes have no reader, and have the system take what is written to them."""
    poll = select.poll()
    for number in numbers:
        poll.register(number, 0)  # errors are always reported, and a writer's only one is that no reader is left
    waiting = set(numbers)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    while waiting:
        for number, _ in poll.poll():
            os.dup2(nowhere, number)
            poll.unregister(number)
            waiting.discard(number)
    os.close(nowhere)
    log.warning("what read the output of process %d has ended; the run goes on, and its log is in Prefect", os.getpid())
