"""Who holds a home: a lock of the operating system, which a dead process cannot keep, and a fencing token.

Whoever takes the lease raises the token, and an owner with an old one cannot publish any more. A process that is
stopped or hangs keeps the lock: a person takes the home from it, which gives the lock's name to a new file and raises
the token, so that the old owner publishes nothing when it wakes up.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from model.files import write_json
from tasks.alive import Mark
from tasks.errors import NightBusy, NightStopped
from tasks.home.lines import Lines, now

LOCK, LEASE = "lease.lock", "lease.json"
GUARD_SECONDS = 120.0
"""How long a change of the owner waits for a publication to come to its end; that of a model waits for its registry."""
RECORD_SECONDS = 2.0
"""How long one that found the home held waits for the owner's name."""
ASKED_SECONDS = 0.5
"""How long a lock must be refused until somebody is said to hold it."""
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Owner:
    """Who took the lease."""

    holder: str
    """The recipe, or what else is done."""
    host: str
    since: str
    mark: Mark

    @property
    def is_here(self) -> bool:
        """Whether its process is, or was, one of this machine."""
        return self.host == socket.gethostname()

    @property
    def is_stopped(self) -> bool:
        """Whether it is here, and was told to stop where it stands (SIGSTOP, Ctrl-Z)."""
        process = self.mark.process() if self.is_here else None
        return process is not None and process.status() == psutil.STATUS_STOPPED

    def __str__(self) -> str:
        stopped = f", and is stopped: kill -CONT {self.mark.pid} lets it go on" if self.is_stopped else ""
        return f"{self.holder}, process {self.mark.pid} on {self.host}, since {self.since}{stopped}"


@dataclass(frozen=True)
class Lease(Lines):
    """The lease of a home folder."""

    def check(self, token: int) -> None:
        """Raise NightBusy unless `token` is the newest."""
        newest = self.read_token()
        if token != newest:
            raise NightBusy(
                f"this night was overtaken: it holds token {token}, the newest is {newest}; "
                "nothing was published, run it again"
            )

    @contextmanager
    def holding(self, token: int) -> Iterator[None]:
        """Make something visible as the owner of the lease, of which nobody can be deprived meanwhile.

        Raises NightBusy unless `token` is the newest.
        """
        with self._guard(fcntl.LOCK_SH):
            self.check(token)
            yield

    def read_token(self) -> int:
        try:
            return int(self._lease()["token"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def owner(self) -> Owner | None:
        """Who took the lease last, whether it still has it or not; None if nobody is on record."""
        try:
            held = self._lease()
            boot = held.get("boot", "")
            mark = Mark(int(held["pid"]), float(held.get("started", 0)), boot)
            return Owner(held["holder"], held["host"], held["since"], mark)
        except (OSError, ValueError, KeyError, TypeError):  # it has the lock and has not written yet
            return None

    def is_held(self) -> bool:
        """Whether some process holds the lease right now."""
        try:
            with self._lock(fcntl.LOCK_SH):  # shared: two who ask at once do not take each other for a holder
                return False
        except BlockingIOError:
            return True

    def take_over(self, by: str) -> int:
        """Take the lease away from its owner, which may be stopped or hang, and leave it free; returns the new token.

        The owner goes on as long as it likes and publishes nothing any more. by: who did it, for messages.
        Raises NightStopped if the owner is publishing and does not come to an end of it.
        """
        with self._guard(fcntl.LOCK_EX):
            fresh = self.home / f"lease.lock.{os.getpid()}"
            fresh.touch()
            fresh.replace(self.home / LOCK)  # the owner's lock is on a file that has no name any more
            token = self.read_token() + 1
            self._write_lease(token, f"nobody, as {by} took it over")
        self.note(event="taken over", by=by, token=token)
        return token

    @contextmanager
    def lease(self, holder: str) -> Iterator[int]:
        """Hold the home for one night; yields the fencing token. Raises NightBusy within a second if it is taken."""
        self.home.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            self._take_lock(held)
            with self._guard(fcntl.LOCK_EX):
                token = self.read_token() + 1
                self._write_lease(token, holder)
            yield token

    def _lease(self) -> dict[str, Any]:
        return dict(json.loads((self.home / LEASE).read_text(encoding="utf-8")))

    def _write_lease(self, token: int, holder: str) -> None:
        me = {**asdict(Mark.of()), "host": socket.gethostname(), "since": now()}
        write_json(self.home / LEASE, {"token": token, "holder": holder, **me})

    def _who_holds_it(self) -> str:
        owner = self._owner_on_record()
        return (
            f"another night is running in {self.home}{f' ({owner})' if owner else ''}; wait for it, or stop it and run "
            "the same again; one that hangs is deprived of the home by: python -m flows take-over"
        )

    def _owner_on_record(self) -> Owner | None:
        """The owner, once it has written who it is; the one on record before that has ended."""
        deadline = time.monotonic() + RECORD_SECONDS
        while True:
            owner = self.owner()
            recorded = owner is not None and (not owner.is_here or owner.mark.process() is not None)
            if recorded or time.monotonic() > deadline:
                return owner
            time.sleep(POLL_SECONDS)

    def _take_lock(self, held: ExitStack) -> None:
        """Raises NightBusy if another process keeps it. Who only asks `is_held` has it for less than a millisecond."""
        deadline = time.monotonic() + ASKED_SECONDS
        while True:
            try:
                held.enter_context(self._lock(fcntl.LOCK_EX))
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NightBusy(self._who_holds_it()) from None
            time.sleep(POLL_SECONDS)

    @contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        """Hold the lock file that has the name now. Raises BlockingIOError at once if another process does."""
        while True:
            with (self.home / LOCK).open("a") as lock:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
                if not self._has_the_name(lock.fileno()):  # it was taken over between the two
                    continue
                yield
                return

    def _has_the_name(self, number: int) -> bool:
        try:
            return os.path.samestat(os.fstat(number), (self.home / LOCK).stat())
        except FileNotFoundError:
            return False

    @contextmanager
    def _guard(self, kind: int) -> Iterator[None]:
        """Hold the lock that publishing shares and that a change of the owner has alone.

        Raises NightStopped if another process keeps it for GUARD_SECONDS.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + GUARD_SECONDS
        with (self.home / "lease.guard").open("a") as guard:
            while True:
                try:
                    fcntl.flock(guard, kind | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise NightStopped(
                            f"{self.owner() or 'another process'} is publishing in {self.home}, and was not done "
                            f"within {GUARD_SECONDS:.0f} s; nothing was changed: end that process, and run this again"
                        ) from None
                    time.sleep(POLL_SECONDS)
            yield
