"""Calls to the tracking store on disk, from the moment they are made until they are delivered.

A run has a folder: its calls, one JSON object a line, only ever appended; copies of its artifacts; and how far the
delivery is. The calls of a killed process stay, and the next process delivers them.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from model.files import append_line, fsync, write_json, write_text

CALLS, PROGRESS, FILES = "calls.jsonl", "progress.json", "files"
IDS, REFUSED, TRASH = "ids.jsonl", "refused.jsonl", ".delivered"
COPIED_BYTES = 16 << 20
"""Larger files are linked. They are weights, which are never written in place; reports and curves are."""


@dataclass(frozen=True)
class Call:
    """One call to the tracking store."""

    kind: str
    at: int
    """When it was made: milliseconds since 1970. A call that is delivered twice is known by it to be the same."""
    values: Mapping[str, Any]
    end: int
    """Where the next call begins in the file, in bytes."""


@dataclass(frozen=True)
class Progress:
    """How far a run's delivery is."""

    offset: int = 0
    """Calls before this byte are delivered."""
    logged_until: int = 0
    """The last step that was delivered before the run was reopened: a resumed stage computes some steps again. After a
    roll back at most the step that it went back to: those after it are made again, and count."""
    begun: tuple[str, ...] = ()
    """Names of the metrics that the run had when it was reopened."""
    samples: int = 0
    """Of the machine's load that were delivered before the run was reopened."""
    closed: bool = False


@dataclass(frozen=True)
class Spool:
    """The spool of one tracking store."""

    folder: Path

    def append(self, run_id: str, kind: str, values: Mapping[str, Any], artifact: Path | None = None) -> None:
        """Add a call at the end of a run's calls. It outlives the process from now on, and the machine after `flush`.

        run_id: as `Store.start_run` returned it.
        kind, values: as `delivery` sends them; JSON.
        artifact: a file or folder that is delivered as it is now.
        """
        with self._lock("append"):
            folder = self.folder / run_id
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / CALLS
            begin = path.stat().st_size if path.exists() else 0
            if begin < self.progress(run_id).offset:  # the machine died and lost calls that were delivered
                self.note(run_id, offset=begin)
            if artifact is not None:
                values = {**values, "file": keep(artifact, folder / FILES / str(begin))}
            append_line(path, {"kind": kind, "at": int(time.time() * 1_000), "values": values}, flush=False)

    def flush(self, run_id: str) -> None:
        """Bring a run's calls to the disk if any wait."""
        if next(self.pending(run_id), None) is not None:
            for path in (*(self.folder / run_id).rglob("*"), self.folder / run_id):
                fsync(path)

    def pending(self, run_id: str) -> Iterator[Call]:
        """The run's calls that are not delivered, oldest first. A line that was cut by a crash is left out."""
        for content, end in whole_lines(self.folder / run_id / CALLS, self.progress(run_id).offset):
            if {"kind", "at", "values"} <= content.keys():
                yield Call(content["kind"], content["at"], content["values"], end)

    def file_of(self, run_id: str, call: Call) -> Path:
        """The copy of a call's artifact."""
        return self.folder / run_id / FILES / str(call.values["file"])

    def progress(self, run_id: str) -> Progress:
        """From the beginning if the file was lost with the machine: what is delivered twice counts once."""
        try:
            return Progress(**json.loads((self.folder / run_id / PROGRESS).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return Progress()

    def note(self, run_id: str, **changes: Any) -> None:
        """Change a run's progress."""
        write_json(self.folder / run_id / PROGRESS, asdict(replace(self.progress(run_id), **changes)))

    def delivered(self, run_id: str, call: Call, closed: bool) -> None:
        """Note that a run's calls up to this one are delivered, and delete its artifact."""
        self.note(run_id, offset=call.end, closed=closed)
        if "file" in call.values:
            shutil.rmtree(self.file_of(run_id, call).parent, ignore_errors=True)

    def remove_if_done(self, run_id: str) -> None:
        """Delete a run's folder if the run is closed and nothing of it waits."""
        with self._lock("append"):
            if self.progress(run_id).closed and next(self.pending(run_id), None) is None:
                # By one rename: the progress of a folder that is half deleted would count for later calls.
                trash = self.folder / TRASH
                shutil.rmtree(trash, ignore_errors=True)
                (self.folder / run_id).rename(trash)
                shutil.rmtree(trash, ignore_errors=True)

    def take_over(self, other: Path) -> None:
        """Move what lies in another spool's folder here, and delete that."""
        if not other.is_dir():
            return
        with self._lock("deliver"), self._lock("append"):
            for path in sorted(other.iterdir()):
                target = self.folder / path.name
                if path.name in (IDS, REFUSED):
                    with target.open("ab") as stream:
                        stream.write(path.read_bytes())
                elif path.is_dir() and not path.name.startswith(".") and not target.exists():
                    path.rename(target)
            shutil.rmtree(other)

    def runs(self) -> list[str]:
        """Ids of the runs that have a folder."""
        if not self.folder.exists():
            return []
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith("."))

    def waiting(self, *run_ids: str) -> int:
        """How many calls wait, of all runs or of these."""
        return sum(1 for run_id in run_ids or self.runs() for _ in self.pending(run_id))

    def creation_waits(self, run_id: str) -> bool:
        """Whether the store does not know the run yet."""
        first = next(self.pending(run_id), None)
        return first is not None and first.kind == "create"

    def note_id(self, run_id: str, mlflow_id: str) -> None:
        """Keep which run of MLflow a run is that was started while the store was away."""
        append_line(self.folder / IDS, {"run_id": run_id, "mlflow_id": mlflow_id})

    def resolve(self, run_id: str) -> str:
        """The run's id in MLflow; the same id unless it was started while the store was away."""
        notes = (note for note, _ in whole_lines(self.folder / IDS))
        return next((str(note["mlflow_id"]) for note in notes if note["run_id"] == run_id), run_id)

    def set_aside(self, run_id: str, call: Call, reason: str) -> None:
        """Keep a call that the store refuses, so that those after it can be delivered."""
        entry = {"run_id": run_id, "kind": call.kind, "at": call.at, "values": dict(call.values), "reason": reason}
        append_line(self.folder / REFUSED, entry)

    def forget(self, run_ids: Collection[str]) -> None:
        """Leave out what is kept of runs that are gone from the store for good: their ids, and what it refused."""
        with self._lock("deliver"), self._lock("append"):
            for path in (self.folder / IDS, self.folder / REFUSED):
                lines = [entry for entry, _ in whole_lines(path)]
                kept = [e for e in lines if not {e.get("run_id"), e.get("mlflow_id")} & set(run_ids)]
                if len(kept) < len(lines):
                    write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
            for run_id in run_ids:
                shutil.rmtree(self.folder / run_id, ignore_errors=True)

    @contextmanager
    def delivering(self) -> Iterator[None]:
        """Deliver alone: neither a thread nor a process does at the same time. Calls can be appended meanwhile."""
        with self._lock("deliver"):
            yield

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def whole_lines(path: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The objects of such a file from a byte on, each with where it ends. A line that was cut by a kill is left out."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        stream.seek(offset)
        for line in stream:
            offset += len(line)
            try:
                content = json.loads(line)
            except ValueError:
                continue
            if isinstance(content, dict):
                yield content, offset


def keep(source: Path, target: Path) -> str:
    """Copy a file or folder into a new folder `target`; returns its path from the folder above."""
    shutil.rmtree(target, ignore_errors=True)  # a process was killed between the copy and its call
    target.mkdir(parents=True)
    if source.is_dir():
        shutil.copytree(source, target / source.name, copy_function=copy_or_link)
    else:
        copy_or_link(str(source), str(target / source.name))
    return f"{target.name}/{source.name}"


def copy_or_link(source: str, target: str) -> None:
    """Copy a small file, link a large one where the file system has hard links."""
    if Path(source).stat().st_size > COPIED_BYTES:
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    shutil.copy2(source, target)
