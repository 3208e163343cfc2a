"""What a user can meet. Each becomes one bounded message and an exit code, never a traceback."""

from __future__ import annotations

import logging

MESSAGE_LIMIT = 1_500


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


class StoreAway(NightStopped):
    """The tracking store did not answer. A night goes on without it; what needs the model registry waits."""


class Interrupted(NightStopped):
    """Ctrl-C or a request to terminate; everything finished is kept."""

    exit_code = 130


class PlainMessages(logging.Filter):
    """Takes the traceback off log records of a NightStopped: the message says it all."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], NightStopped):
            record.exc_info = None
            record.exc_text = None
        return True
