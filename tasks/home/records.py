"""What stages hand each other: refs, records, digests, and directories that appear whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.files import sha256_of

LOGS = "logs"
"""Folder of a stage directory whose files carry times and do not count for the digest."""
RECORD = "record.json"


@dataclass(frozen=True)
class Ref:
    """A path and the digest of what lies there; the only thing that stages hand each other."""

    path: Path
    digest: str


class DatasetRef(Ref):
    """Rows: parquet tables of validated or split text."""


class TokensRef(Ref):
    """A tokenizer and packed rows of ids."""


class CheckpointRef(Ref):
    """Weights: a training stage's output, or an exported folder."""


class EvaluationRef(Ref):
    """Scores of one model on the validation rows, document by document."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What a stage did; written last, as `record.json`. A directory without a valid one does not exist.

    It goes into the folder before the rename that publishes it, so no crash can part a result from its record.
    """

    stage: str
    key: str
    path: Path
    digest: str
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


def take_over(
    base: StageRecord | None, folder: Path, named: Callable[[str], str | None] = lambda name: name
) -> dict[str, str]:
    """Link files of a finished stage into another's folder, `named` says under which name; returns their digests.

    A link costs nothing, and the folders do not need each other afterwards. Where the disk knows no links, files
    are copied.
    """
    taken: dict[str, str] = {}
    if base is None:
        return taken
    for name, digest in base.files.items():
        if (wanted := named(name)) is None:
            continue
        source, target = base.path / name, folder / wanted
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)
        taken[wanted] = digest
    return taken
