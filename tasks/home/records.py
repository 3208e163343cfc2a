"""What stages take and give: the record of a stage, in a directory that appears whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from model.files import sha256_of, write_json, write_text
from tasks.home.digests import digest_of

LOGS = "logs"
"""Folder of a stage directory whose files carry times and do not count for the digest."""
RECORD = "record.json"
BEGUN = "begun.json"
"""In the logs: what a stage is, noted when it begins, for questions about one that has not ended."""


@runtime_checkable
class Content(Protocol):
    """A folder and the digest of what lies in it: a stage's record, a registered model."""

    @property
    def path(self) -> Path: ...
    @property
    def digest(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What a stage did and where it lies: what stages take and give. Written last, as `record.json`; a directory
    without a valid one does not exist.

    It goes into the folder before the rename that publishes it, so no crash can part a result from its record.
    """

    stage: str
    """Its name in the table of stages."""
    branch: str = ""
    """Whose it is if not a night's own: `twin`, `sweep`."""
    key: str
    path: Path
    """The folder."""
    digest: str
    """Of all `files`."""
    config: Any
    """As JSON keeps it."""
    inputs: Mapping[str, str]
    code_version: str
    counts: Mapping[str, int]
    figures: Mapping[str, float]
    """The stage's headline numbers, under their tracking names."""
    headline: str
    """The key figure, in words, for the table of the night."""
    seconds: float
    run_id: str
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    """SHA-256 of each file but the record and the logs, by path in the folder."""
    reused: bool = field(default=False, compare=False)

    @property
    def name(self) -> str:
        """What it is called in folders, tags and messages."""
        return stage_name(self.stage, self.branch)

    @property
    def last_step(self) -> int:
        """Of a training stage, where its curves end; 0 of another."""
        return self.counts.get("steps", 0)

    def digest_of_files(self, *prefixes: str) -> str:
        """Digest of those files alone whose path in the folder begins with one of the prefixes."""
        return digest_of({name: digest for name, digest in self.files.items() if name.startswith(prefixes)})

    def write(self, folder: Path) -> None:
        content = dataclasses.asdict(self) | {"path": self.path.name}
        content.pop("reused")
        (folder / RECORD).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> StageRecord | None:
        """The record of a finished stage directory, or None."""
        try:
            content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            return cls(**(content | {"path": folder, "reused": True}))
        except (OSError, ValueError, TypeError):
            return None


@dataclass(frozen=True, kw_only=True)
class BegunStage:
    """What is known of a stage when its work begins; the fields are those of its record to be."""

    stage: str
    branch: str
    key: str
    inputs: Mapping[str, str]
    config: Any
    code: str
    run_id: str
    night_run: str
    """Run of the night that began it, or went on with it, last."""

    def write(self, folder: Path) -> None:
        """Note it in the working folder of the stage."""
        write_json(folder / LOGS / BEGUN, dataclasses.asdict(self))

    @classmethod
    def read(cls, folder: Path) -> BegunStage | None:
        """What is noted in a stage's folder; None if there is nothing whole."""
        try:
            return cls(**json.loads((folder / LOGS / BEGUN).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def record(self, path: Path) -> StageRecord:
        """Its record as far as it is known: without digest, files, counts and figures. `path`: of its folder."""
        return StageRecord(
            stage=self.stage, branch=self.branch, key=self.key, path=path, digest="", config=self.config,
            inputs=self.inputs, code_version=self.code, counts={}, figures={}, headline="", seconds=0.0,
            run_id=self.run_id,
        )  # fmt: skip


def stage_name(stage: str, branch: str) -> str:
    """A stage's name with that of its branch before it, so that none passes for a night's own."""
    return f"{branch}-{stage}" if branch else stage


def file_digests(folder: Path, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """SHA-256 of a stage directory's files: every one but the record and the logs, by path in the folder.

    What is `known` already, of files taken over from an earlier record, is not read again.
    """
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != RECORD and path.relative_to(folder).parts[0] != LOGS
    )
    given = known or {}
    unknown = [name for name in names if name not in given]
    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter's lock
        found = dict(zip(unknown, pool.map(lambda name: sha256_of(folder / name), unknown), strict=True))
    return {name: given[name] if name in given else found[name] for name in names}


def elapsed(working: Path, started: float) -> float:
    """Seconds of work, those before an interruption included."""
    file = working / LOGS / "seconds"
    total = (float(file.read_text()) if file.exists() else 0.0) + time.monotonic() - started
    write_text(file, f"{total:.3f}")
    return round(total, 3)
