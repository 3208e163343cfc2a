"""Where a recipe's trunk is, the training that grows from night to night, and what a night's pretraining begins with.

`HOME/trunks/RECIPE.json` names the pretrain folder whose state before the decay the next night goes on with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from model.files import write_json
from tasks.home.records import StageRecord

TRUNKS = "trunks"


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a night's pretraining begins with: decided once, and noted."""

    how: Literal["scratch", "trunk", "weights"]
    """From the seed; from weights and moments of `checkpoint`; or from its weights alone, warmed up."""
    parent: str = ""
    """Folder of the pretrain stage, in the home's `data`; empty from scratch."""
    checkpoint: Literal["trunk", "checkpoints"] = "trunk"
    """Which state in that folder: before its decay, or after it."""
    reason: str
    """For people."""

    def record(self, home: Path) -> StageRecord | None:
        """The parent's record; None from scratch, and where the folder is gone."""
        return StageRecord.read(home / "data" / self.parent) if self.parent else None

    def is_there(self, home: Path) -> bool:
        """Whether a night can begin with it: from scratch it always can."""
        return self.how == "scratch" or (
            self.record(home) is not None and (home / "data" / self.parent / self.checkpoint).is_dir()
        )


FROM_SCRATCH = Start(how="scratch", reason="from scratch")


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """Where a recipe's trunk is after its last night."""

    folder: str
    """Of the pretrain stage whose trunk it is."""
    night: str
    """Key of the recipe's last night."""
    data: str
    """Digest of the raw data that the last night had."""
    start: Start
    """What the last night began with: another try of it, on the same rows, begins there too."""
    back: str = ""
    """Why it went back to the champion's trunk after the last night, where it did."""

    def write(self, home: Path, recipe: str) -> None:
        write_json(trunk_path(home, recipe), asdict(self))


def trunk_path(home: Path, recipe: str) -> Path:
    return home / TRUNKS / f"{recipe}.json"


def read_trunk(home: Path, recipe: str) -> Trunk | None:
    """None before the first night has ended, and for a file that is damaged: then a night begins from scratch."""
    try:
        content: dict[str, Any] = json.loads(trunk_path(home, recipe).read_text(encoding="utf-8"))
        return Trunk(**{**content, "start": start_from(content["start"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def start_from(noted: Mapping[str, Any]) -> Start:
    return Start(**noted)


def start_inputs(start: Start, home: Path) -> dict[str, str]:
    """What a start adds to the inputs of a stage: whose state it begins with, and how."""
    parent = start.record(home)
    return {"start": f"{start.how} {start.checkpoint}", "parent": parent.digest} if parent else {}


def parent_in(inputs: Mapping[str, str]) -> tuple[str, str] | None:
    """Of a stage's inputs: digest of the stage whose state it began with, and the folder of that state therein; None
    from scratch."""
    return (inputs["parent"], inputs["start"].split()[1]) if "parent" in inputs else None
