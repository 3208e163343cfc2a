"""What has been done under which key, and who holds the lease.

The journal on disk is the truth; Prefect shows it. A stage is done when its directory has a valid record, and
nothing else counts. The lease is a lock of the operating system, which a dead process cannot keep, plus a
fencing token: whoever takes the lease raises the token, and an owner with an old one cannot publish any more.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.files import append_line, atomic_write, publish_folder, write_json
from tasks.errors import NightBusy
from tasks.home.records import LOGS, StageRecord

KEY_CHARACTERS = 12


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The objects of lines; a writer that is killed leaves half a line, which is passed over."""
    for line in lines:
        with suppress(ValueError):
            if isinstance(entry := json.loads(line), dict):
                yield entry


@dataclass(frozen=True)
class Journal:
    """The state of a home folder."""

    home: Path

    def stage_folder(self, stage: str, key: str) -> Path:
        return self.home / "data" / f"{stage}@{key[:KEY_CHARACTERS]}"

    def finished(self, stage: str, key: str) -> StageRecord | None:
        """The record of a finished stage, or None."""
        record = StageRecord.read(self.stage_folder(stage, key))
        return record if record and record.key == key else None

    def working_folder(self, stage: str, key: str, resumable: bool) -> Path:
        """Where a stage writes until it is published; emptied unless the stage can go on where it stopped."""
        final = self.stage_folder(stage, key)
        folder = final.with_name(f"{final.name}.partial")
        if not resumable:
            shutil.rmtree(folder, ignore_errors=True)
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
        return folder

    def publish(self, working: Path, record: StageRecord, token: int) -> None:
        """Make a finished stage visible: record last, flush, one rename. Raises NightBusy if the lease moved on."""
        self.check(token)
        record.write(working)
        publish_folder(working, record.path)
        self.note(
            event="published", stage=record.stage, branch=record.branch, key=record.key, digest=record.digest,
            run_id=record.run_id,
        )  # fmt: skip

    def newest(self, stage: str, recipe: str) -> StageRecord | None:
        """What the stage last gave for a recipe, if it is still there: what tonight's data may only have to grow."""
        try:
            folder = self.home / "data" / json.loads(self._newest_path(recipe).read_text(encoding="utf-8"))[stage]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return StageRecord.read(folder)

    def remember(self, record: StageRecord, recipe: str) -> None:
        """Make a record the newest of its stage for a recipe. Only a hint: without it a stage starts anew."""
        path = self._newest_path(recipe)
        try:
            names = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            names = {}
        write_json(path, names | {record.name: record.path.name})

    def _newest_path(self, recipe: str) -> Path:
        return self.home / "newest" / f"{recipe}.json"

    @property
    def grown_path(self) -> Path:
        return self.home / "grown.json"

    def grown(self) -> dict[str, str]:
        """By digest of what grew the digest of what it grew from, where folders between the two are gone."""
        try:
            return dict(json.loads(self.grown_path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def base_of(self, record: StageRecord) -> str:
        """Digest of what a record grew from, the nearest that was there when the home was cleaned last; or nothing."""
        return self.grown().get(record.digest, record.inputs.get("base", ""))

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

    def last_promoted(self, recipe: str) -> int | None:
        """The version of a recipe that was made champion last, as far as this home knows."""
        promoted = (
            int(entry["version"])
            for entry in reversed(self.entries())
            if entry.get("recipe") == recipe and (entry.get("event") == "promoted by hand" or entry.get("promoted"))
        )
        return next(promoted, None)

    def check(self, token: int) -> None:
        """Raise NightBusy unless `token` is the newest."""
        newest = self.read_token()
        if token != newest:
            raise NightBusy(
                f"this night was overtaken: it holds token {token}, the newest is {newest}; "
                "nothing was published, run it again"
            )

    def read_token(self) -> int:
        try:
            return int(json.loads((self.home / "lease.json").read_text())["token"])
        except (OSError, ValueError, KeyError):
            return 0

    def _who_holds_it(self) -> str:
        try:
            held = json.loads((self.home / "lease.json").read_text(encoding="utf-8"))
            who = f" ({held['holder']}, process {held['pid']} on {held['host']}, since {held['since']})"
        except (OSError, ValueError, KeyError, TypeError):  # it has the lock and has not written yet
            who = ""
        return f"another night is running in {self.home}{who}; wait for it, or stop it and run the same again"

    @contextmanager
    def lease(self, holder: str) -> Iterator[int]:
        """Hold the home for one night; yields the fencing token. Raises NightBusy at once if it is taken."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "lease.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise NightBusy(self._who_holds_it()) from None
            token = self.read_token() + 1
            content = {
                "token": token,
                "holder": holder,
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": now(),
            }
            write_json(self.home / "lease.json", content)
            yield token
