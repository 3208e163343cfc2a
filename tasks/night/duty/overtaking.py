"""A home is taken from a night that was stopped or hangs, because a person says so."""

from __future__ import annotations

from contextlib import suppress

import psutil

from tasks.errors import NightStopped
from tasks.home.journal import Journal
from tasks.home.lease import Owner
from tasks.settings import Settings

BY = "a person"
WAIT_SECONDS = 30


def take_home_over() -> str:
    """Take the home from the night that holds it, end its process if it is one of this machine, and say so.

    What it publishes afterwards is nothing, wherever it runs. Raises NightStopped if no night holds the home, or if it
    is in the middle of publishing.
    """
    journal = Journal(Settings.load().home)
    if not journal.home.is_dir() or not journal.is_held():
        raise NightStopped(f"no night runs in {journal.home}: there is nothing to take over")
    owner = journal.owner()
    token = journal.take_over(BY)
    return f"{journal.home} is free, from token {token} on; it was held by {owner or 'a process unknown'}; {end(owner)}"


def end(owner: Owner | None) -> str:
    """Kill the process of an owner that is here; says what became of it."""
    process = owner.mark.process() if owner and owner.is_here else None
    if owner is None or process is None:
        return "that process is not of this machine, or not found: end it there; it publishes nothing any more"
    with suppress(psutil.NoSuchProcess):
        process.kill()
        try:
            process.wait(WAIT_SECONDS)
        except psutil.TimeoutExpired:
            return f"process {owner.mark.pid} did not end within {WAIT_SECONDS} s; it publishes nothing any more"
    return f"process {owner.mark.pid} was ended, and the next night goes on from its last checkpoint"
