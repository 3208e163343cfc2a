"""Errors that a user can meet. Each becomes one bounded message and an exit code, never a traceback."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterable

PASSING = {
    errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH,
    errno.ENOLCK, errno.ESTALE, errno.ETXTBSY, errno.EREMOTEIO,
}  # fmt: skip
"""Numbers of faults that pass by themselves."""
MESSAGE_LIMIT = 1_500
"""Characters; a longer message is cut."""


class NightStopped(Exception):
    """The night ends here for a reason the user can act on; the champion is untouched."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message[:MESSAGE_LIMIT])


class Diverged(NightStopped):
    """Training went non-finite."""

    exit_code = 3


class NightBusy(NightStopped):
    """Another night holds the lease."""

    exit_code = 4


class DiskFault(NightStopped):
    """A disk is full, read-only, broken, forbidden, or was emptied while the night ran."""

    def __init__(self, message: str, passing: bool = False) -> None:
        """passing: whether the same may work in a minute."""
        super().__init__(message)
        self.passing = passing


class StoreAway(NightStopped):
    """The tracking store did not answer. A night goes on without it; what needs the model registry waits."""


class Refused(NightStopped):
    """The tracking store answered, and does not accept this."""


class Denied(StoreAway):
    """The tracking store answered, and wants other credentials. Later on in a night this is as if it were away."""


class Interrupted(NightStopped):
    """Ctrl-C or a request to terminate; everything finished is kept."""

    exit_code = 130


def is_passing(error: object) -> bool:
    """Whether what failed may work in a minute: a network, a mount, a lock. A missing file or a full disk does not
    mend itself, and a NightStopped would end the night for the same reason."""
    if isinstance(error, DiskFault):
        return error.passing
    if not isinstance(error, OSError):
        return False
    if error.errno is None:  # time-outs and libraries of the network give no number
        return True
    return isinstance(error, ConnectionError | TimeoutError) or error.errno in PASSING


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: up to three known names that are spelt like it, or nothing."""
    import difflib  # only an error waits for it

    nearest = difflib.get_close_matches(word, list(names))
    return f"; did you mean {' or '.join(nearest)}?" if nearest else ""


def without_password(uri: str) -> str:
    """An address as it may be shown."""
    return re.sub(r"(?<=//)([^/@:]*):[^/@]*@", r"\1:***@", uri)


class PlainMessages(logging.Filter):
    """Removes the traceback from log records of a NightStopped, whose message is all that a user needs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], NightStopped):
            record.exc_info = None
            record.exc_text = None
        return True
