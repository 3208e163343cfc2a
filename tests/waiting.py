"""Waiting for what another process does, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import httpx

PATIENCE_SECONDS = 120
PAUSE_SECONDS = 0.1
ask = partial(httpx.request, timeout=PATIENCE_SECONDS)
"""(method, address): a server's answer. Where two flows start on two busy cores it can take longer than the 5 s that
httpx waits by itself, and no test asks how fast it comes."""


def wait_until(
    happened: Callable[[], object],
    seconds: float = PATIENCE_SECONDS,
    why_in_vain: Callable[[], str] = lambda: "",
    what: str = "waited too long",
) -> None:
    """Ask again and again.

    why_in_vain: says why it will never happen, empty as long as it may.
    Fails after so many seconds, with `what` was waited for.
    """
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not happened():
        assert not (why := why_in_vain()), why
        assert time.monotonic() < deadline, what
        pause.wait(PAUSE_SECONDS)
