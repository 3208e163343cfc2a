"""What has been done under which key, and who holds the lease.

The journal on disk is the truth; Prefect shows it. A stage is done when its directory has a valid record, and
nothing else counts.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from model.files import publish_folder, write_json
from tasks.home.lease import Lease
from tasks.home.records import LOGS, StageRecord

KEY_CHARACTERS = 12
DECIDED, BY_HAND = "decided", "promoted by hand"
"""Events: of a night's decision on its model, and of a champion that a person chose."""


@dataclass(frozen=True)
class Journal(Lease):
    """The state of a home folder."""

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
        with self.holding(token):
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

    def last_promoted(self, recipe: str) -> int | None:
        """The version of a recipe that was made champion last, as far as this home knows."""
        promoted = (
            int(entry["version"])
            for entry in reversed(self.entries())
            if entry.get("recipe") == recipe and (entry.get("event") == BY_HAND or entry.get("promoted"))
        )
        return next(promoted, None)
