"""Waiting for what another process does, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
from prefect.client.base import PrefectHttpxSyncClient

PATIENCE_SECONDS = 120
PAUSE_SECONDS = 0.1


def ask(method: str, url: str, **options: Any) -> httpx.Response:
    """A server's answer, as late as it comes. One that is too busy for one (503) is asked again.

    Where two flows start on two busy cores, Prefect's server on SQLite does both.
    """
    with PrefectHttpxSyncClient(timeout=PATIENCE_SECONDS) as client:
        return client.request(method, url, **options)


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
