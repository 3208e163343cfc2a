"""Homes with a past that was never lived: folders, records and notes as nights leave them, in milliseconds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.home.digests import digest_of
from tasks.home.journal import Journal
from tasks.home.notes import WAITING
from tasks.home.records import StageRecord, file_digests
from tasks.tracking.removal.runs import TrackedVersion

HOUR_SECONDS = 3_600
LONG_AGO = 1_700_000_000.0


@dataclass
class MadeUp:
    """A home, and how many nights it has had."""

    home: Path
    nights: list[str] = field(default_factory=list)
    """Names of the notes, oldest first."""
    versions: dict[str, list[TrackedVersion]] = field(default_factory=dict)
    """Of each recipe, newest first."""

    @property
    def now(self) -> float:
        return LONG_AGO + HOUR_SECONDS * len(self.nights)

    def publish(self, stage: str, inputs: Mapping[str, str], files: tuple[str, ...], **counts: int) -> StageRecord:
        journal = Journal(self.home)
        key = digest_of([stage, dict(inputs), len(self.nights)])
        working = journal.working_folder(stage, key, resumable=False)
        for name in files:
            (working / name).write_text(f"{name} {key}")
        digests = file_digests(working)
        config: Any = {"recipe": self.recipe} if stage == "register" else {}
        record = StageRecord(
            stage=stage, key=key, path=journal.stage_folder(stage, key), digest=digest_of(digests), files=digests,
            config=config, inputs=dict(inputs), code_version="", counts=counts, figures={}, headline="", seconds=0.0,
            run_id=key[:32],
        )  # fmt: skip
        journal.publish(working, record, 0)
        for path in (record.path, *record.path.rglob("*")):
            os.utime(path, (self.now, self.now))
        return record

    def night(self, recipe: str, role: str = "", waits: bool = False, finished: bool = True) -> dict[str, StageRecord]:
        """A night that grows from the recipe's last one; it registers a version, which may have a role."""
        self.recipe = recipe
        journal, key = Journal(self.home), f"{len(self.nights):064x}"[::-1]
        before = journal.newest("tokens", recipe)
        rows = self.publish("split", {"rows": f"raw {recipe} {len(self.nights)}", "base": ""}, ("rows",))
        grown = {"rows": rows.digest, "base": before.digest if before else ""}
        packed = self.publish("tokens", grown, ("tokenizer.json", "pretrain.train.x", "chat.train.x"))
        for record in (rows, packed):
            journal.remember(record, recipe)
        trained = {"tokens": packed.digest_of_files("pretrain.", "tokenizer.json")}
        first = self.publish("pretrain", trained, ("model.safetensors",))
        stages = {"split": rows, "tokens": packed, "pretrain": first}
        note: dict[str, Any] = {"run_id": key[:32], "key": key}
        if finished:
            inputs = {"tokens": packed.digest_of_files("chat.", "tokenizer.json"), "pretrained": first.digest}
            stages["sft"] = self.publish("sft", inputs, ("model.safetensors",))
            number = len(self.versions.setdefault(recipe, [])) + 1
            made = {"trained": stages["sft"].digest}
            stages["register"] = self.publish("register", made, ("model",), version=number)
            roles = (role,) if role else ()
            its = TrackedVersion(version=number, run_id=key[:32], source="", roles=roles)
            self.versions[recipe].insert(0, its)
            note |= {"stages": {name: record.path.name for name, record in stages.items()}, "version": number}
            if waits:
                note[WAITING] = {"recipe": {}}
        path = self.home / "nights" / f"{recipe}@{key[:12]}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(note))
        os.utime(path, (self.now, self.now))
        self.nights.append(path.name)
        return stages


def state_of(home: Path) -> dict[str, bytes]:
    """Content of every file but locks, by path."""
    return {
        path.relative_to(home).as_posix(): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def folders_of(home: Path) -> Iterator[Path]:
    return (path for path in sorted((home / "data").iterdir()) if path.is_dir())
