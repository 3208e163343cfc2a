"""A home's journal as a file: one JSON object a line, appended by many processes."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.files import append_line, atomic_write


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The objects of lines; a writer that is killed leaves half a line, which is passed over."""
    for line in lines:
        with suppress(ValueError):
            if isinstance(entry := json.loads(line), dict):
                yield entry


@dataclass(frozen=True)
class Lines:
    """The lines of `HOME/journal.jsonl`."""

    home: Path

    def note(self, **entry: object) -> None:
        """Append one line to the journal."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self._writing():
            append_line(self._lines, {"at": now(), **entry}, flush=False)

    def drop_lines(self, needless: Callable[[Mapping[str, Any]], bool]) -> int:
        """Leave lines out of the journal, in one write; returns their number. What is no line is kept."""
        with self._writing():
            lines = self._lines.read_bytes().splitlines(keepends=True) if self._lines.exists() else []
            kept = [line for line in lines if not any(needless(entry) for entry in parsed([line]))]
            if len(kept) < len(lines):
                with atomic_write(self._lines) as temporary:
                    temporary.write_bytes(b"".join(kept))
            return len(lines) - len(kept)

    @property
    def _lines(self) -> Path:
        return self.home / "journal.jsonl"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Alone among processes: a line must not go to a file that is being replaced."""
        with (self.home / ".journal.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def entries(self) -> list[dict[str, Any]]:
        """Lines of the journal, oldest first."""
        path = self._lines
        return list(parsed(path.read_bytes().splitlines() if path.exists() else ()))
