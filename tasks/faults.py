"""What disks do to a night: full, read-only, broken, forbidden, emptied while it runs. Each is a message with its cure.

A fault of the program is another thing: its traceback is kept in a file, and a line on the terminal names that.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import resource
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.errors import DiskFault, NightStopped

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM)
GONE = (errno.ENOENT, errno.ENOTDIR)
TOO_MANY = (errno.EMFILE, errno.ENFILE)
KNOWN = {*FULL, *FORBIDDEN, *GONE, *TOO_MANY, errno.EROFS, errno.EIO}
"""Numbers of the system's errors that are told as faults of a disk."""
NUMBER = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)")
"""How libraries that raise errors of their own have the number in the text: Python's way, and Rust's."""
IN_WORDS = {
    "database or disk is full": errno.ENOSPC, "disk I/O error": errno.EIO,
    "attempt to write a readonly database": errno.EACCES, "Not enough free space to write": errno.ENOSPC,
}  # fmt: skip
"""What SQLite and NumPy say instead."""
UNNUMBERED = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}
NAMED = re.compile(r"(?:\(os error \d+\)|No such file or directory|Permission denied): ([^\n]+)")
"""Where a library has the path in the text alone."""
WANTED = re.compile(r"Not enough free space to write (\d+) bytes")
FULL_BELOW_BYTES = 1 << 20
"""With less free, a disk is full for a night, whatever a library made of it."""
REASON_CHARACTERS = 300
CRASHES = "crashes"
"""Folder in the home with the tracebacks of faults of the program."""
GO_ON = "Finished stages are kept, and the same command goes on."
log = logging.getLogger("nightschool")


@contextmanager
def disk_faults(place: Path, home: Path, needed_bytes: Callable[[], int] | None = None) -> Iterator[None]:
    """Raise what a disk did to the body as DiskFault, with its cure. Other errors pass as they are.

    place: the file or folder that is written or read, named where the error names none.
    needed_bytes: how much the night needs on the disk, asked only where that is full.
    """
    try:
        yield
    except NightStopped:
        raise
    except Exception as error:
        if fault := fault_of(error, place, home, needed_bytes):
            raise fault from error
        raise


@contextmanager
def whatever_it_says(what: str) -> Iterator[None]:
    """Go on, with a warning, where the disk keeps `what` from being told: it must not hide the reason of an end."""
    try:
        yield
    except OSError as error:
        log.warning("%s could not be told: %s", what, in_a_line(error))


def fault_of(
    error: BaseException, place: Path, home: Path, needed_bytes: Callable[[], int] | None = None
) -> DiskFault | None:
    """What a disk did, if that is what an error says. The parameters are those of `disk_faults`."""
    number = number_of(error)
    if number not in KNOWN:
        return None
    path = path_of(error, number)
    if path is None and number in GONE:
        return None
    wanted = WANTED.search(str(error))
    message = sentence(number, path or place, home, needed_bytes, int(wanted[1]) if wanted else 0)
    return DiskFault(message if number in TOO_MANY else f"{message}. {GO_ON}", passing=number == errno.EIO)


def number_of(error: BaseException) -> int | None:
    """The system's number of an error, or of what it was raised from; None if there is none.

    A file that is missing counts only where the error itself says so.
    """
    number = own_number(error)
    cause = error.__cause__
    while number is None and cause is not None:
        number = own_number(cause)
        if number in GONE:
            return None
        cause = cause.__cause__
    return number


def own_number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if found := NUMBER.search(text):
        return int(found[1] or found[2])
    said = next((number for words, number in IN_WORDS.items() if words in text), None)
    return said or next((number for kind, number in UNNUMBERED.items() if isinstance(error, kind)), None)


def path_of(error: BaseException, number: int) -> Path | None:
    """The file that an error names; of a copy that found no space, the one that was written."""
    if isinstance(error, shutil.Error) and isinstance(
        error.args[0], list
    ):  # of a copied folder: an entry for each file
        names = error.args[0][0][:2]
    else:
        names = [getattr(error, name, None) for name in ("filename", "filename2")]
    named = [os.fsdecode(name) for name in names if isinstance(name, str | bytes | os.PathLike)]
    if not named and (found := NAMED.search(str(error))):
        named = [found[1]]
    return Path(named[-1 if number in FULL else 0]) if named else None


def sentence(number: int, path: Path, home: Path, needed_bytes: Callable[[], int] | None, wanted_bytes: int = 0) -> str:
    """What happened to a path, with the numbers that are known, and what to do.

    wanted_bytes: what was to be written in one piece, 0 if that is not known.
    """
    elsewhere = or_another_home(path, home)
    if number in FULL:
        return full(number, path, home, needed_bytes, wanted_bytes)
    if number == errno.EROFS:
        return f"{path} cannot be written: its file system is read-only; mount it for writing{elsewhere}"
    if number == errno.EIO:
        return (
            f"the disk failed as {path} was read or written (error {number}, {os.strerror(number)}); look at the log "
            f"of the system, and if the disk is broken, put what it holds on another{elsewhere}"
        )
    if number in FORBIDDEN:
        return f"user {os.getuid()} may not read or write {path}{rights_of(path)}; give that user the right{elsewhere}"
    if number in TOO_MANY:
        limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (
            f"{path} cannot be opened: this process has as many files open as it may, {limit:,}; raise the limit with "
            f"ulimit -n (up to {most:,}) and run the same again"
        )
    return gone(path, home)


def full(
    number: int, path: Path, home: Path, needed_bytes: Callable[[], int] | None = None, wanted_bytes: int = 0
) -> str:  # fmt: skip
    """Of a disk without space, or without room for another file. The parameters are those of `sentence`."""
    there = nearest(path)
    usage, files = shutil.disk_usage(there), os.statvfs(there)
    what = "the disk is full" if number == errno.ENOSPC else f"the quota of user {os.getuid()} is used up"
    room = f"{megabytes(usage.free)} of {megabytes(usage.total)} are free there"
    if files.f_files and not files.f_favail:
        room = f"it holds as many files as it can, {files.f_files:,}"
    needs = f", {megabytes(wanted_bytes)} were to be written" if wanted_bytes else ""
    if needed_bytes and path.is_relative_to(home):
        needs += f", and checkpoints and exports of this recipe take about {megabytes(needed_bytes())} in all"
    cure = "; free some" if path.is_relative_to(home) else "; free some there"
    return f"{what}: {path} could not be written; {room}{needs}{cure}{or_another_home(path, home)}"


def gone(path: Path, home: Path) -> str:
    if not path.is_relative_to(home):
        return f"{path} is not there any more; put it back, or leave its source out of the recipe"
    parts = path.relative_to(home).parts
    if len(parts) > 1 and parts[0] == "data":
        return f"{path} is not there any more; delete the folder {home / 'data' / parts[1]}: it is made again"
    return f"{path} is not there any more; what is in {home} must stay while a night runs. Run the same again"


def or_another_home(path: Path, home: Path) -> str:
    if not path.is_relative_to(home):
        return ""
    return ", or move the home to another disk and set NIGHTSCHOOL_HOME to it"


def rights_of(path: Path) -> str:
    """Whose a path is and what its mode allows, in brackets; of the folder above where the path says nothing."""
    there = nearest(path)
    try:
        status = there.stat()
    except OSError:
        return ""
    whose = "" if there == path else f"{there} "
    return f" ({whose}belongs to user {status.st_uid}, mode {status.st_mode & 0o7777:04o})"


def nearest(path: Path) -> Path:
    """A path, or what of it there is."""
    return next((parent for parent in (path, *path.parents) if os.path.lexists(parent)), Path("/"))


def megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def ending(error: Exception, home: Path) -> tuple[str, int]:
    """What an error is to a person at a terminal, and the exit code: 1 for a fault of the program."""
    fault = error if isinstance(error, NightStopped) else fault_of(error, home, home)
    if fault:
        cause = error.__cause__ or error
        seen = f"\nWhat asked for it: {where_traceback_is(cause, home)}" if number_of(cause) in GONE else ""
        return f"{fault}{seen}", fault.exit_code
    usage = shutil.disk_usage(nearest(home))
    if usage.free < FULL_BELOW_BYTES:
        return f"{full(errno.ENOSPC, home, home)}. {GO_ON} What failed: {in_a_line(error)}", DiskFault.exit_code
    if said := server_failed(error, home):
        return f"{said}. {GO_ON}", NightStopped.exit_code
    return f"{in_a_line(error)}\nThis is a fault of the program; {where_traceback_is(error, home)}", 1


def server_failed(error: BaseException, home: Path) -> str:
    """What a status of 500 and more says to a person, which a server answers that cannot write; empty for others."""
    response: Any = getattr(error, "response", None)  # of httpx, which Prefect's own error wraps
    status = getattr(response, "status_code", 0)
    if not isinstance(status, int) or status < 500:
        return ""
    return (
        f"a server failed (status {status} of {response.url}): it may not be able to write its database, by a full "
        f"disk, a quota or a limit on the size of files (ulimit -f); the logs of ours are in {home / 'services'}"
    )


def in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:REASON_CHARACTERS]


def where_traceback_is(error: BaseException, home: Path) -> str:
    """Keep a traceback in the home, or where temporary files are; where neither can be, it is part of the answer."""
    text = "".join(traceback.format_exception(error))
    name = f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}-{os.getpid()}.txt"
    for folder in (home / CRASHES, Path(tempfile.gettempdir()) / "nightschool-crashes"):
        if folder.parent.is_dir():
            try:
                folder.mkdir(exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8", errors="replace")
            except OSError:
                continue
            return f"its traceback is in {folder / name}"
    return f"its traceback could not be written to a file:\n{text}"
