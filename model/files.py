"""Files and folders that appear whole or not at all and survive a power cut; checksums.

One policy for all of them: written beside their place, flushed to the disk (fsync), renamed, and the rename flushed.
Without the first flush a power cut can leave an empty file under the final name, since a file system may put the rename
on the disk before the content; without the second it can undo the rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write the file to; on leaving, that file is flushed and takes the place of `path`.

    Makes the folder if there is none. If the body raises, `path` stays as it was and the temporary file is removed.
    A killed process leaves the temporary file, which the next write of `path` overwrites. One writer at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write readable JSON atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def append_line(path: Path, content: object, flush: bool = True) -> None:
    """Add an object to a file of one JSON object a line; with `flush` it is on the disk when this returns.

    A line that a kill or a full disk has cut is ended first: it is lost alone.
    """
    with path.open("a+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        torn = end and os.pread(stream.fileno(), 1, end - 1) != b"\n"
        stream.write((b"\n" if torn else b"") + json.dumps(content).encode() + b"\n")
        stream.flush()
        if flush:
            os.fsync(stream.fileno())


def made_once(path: Path, make: Callable[[Path], object]) -> Path:
    """`path`; if it is not there, `make` writes it, atomically, to the path that it is given."""
    if not path.exists():
        with atomic_write(path) as temporary:
            make(temporary)
    return path


def publish_folder(working: Path, final: Path) -> None:
    """Flush a finished folder with all that is in it and rename it to `final`, on the same file system.

    What lies at `final` is deleted first: a name stands for one content, so it can only be a damaged copy.
    """
    for path in (*working.rglob("*"), working):
        fsync(path)
    shutil.rmtree(final, ignore_errors=True)
    working.rename(final)
    fsync(final.parent)


def fsync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
