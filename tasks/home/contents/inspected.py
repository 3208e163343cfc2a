"""The folder of `inspect`: the data report, its statistics, and what sources lost on the way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LOSSES = "losses.json"


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Rows of a source that a stage left out, or put where they serve only half of their purpose."""

    source: str
    stage: str
    lost: int
    of: int
    """Rows of the source that the stage was given, or other units."""
    what: str
    """What became of the lost ones, after their number: `are near duplicates`."""
    cure: str
    unit: str = "rows"
    """What is counted."""
    may_stop: bool = True
    """Whether so many of them can stop a night; copies that are delivered again are no reason to."""

    @property
    def share(self) -> float:
        return self.lost / max(1, self.of)

    @property
    def sentence(self) -> str:
        return f"source {self.source}: {self.lost:,} of {self.of:,} {self.unit} {self.what} ({self.stage}); {self.cure}"


def write_losses(folder: Path, losses: Sequence[Loss]) -> None:
    (folder / LOSSES).write_text(json.dumps([asdict(loss) for loss in losses], indent=1), encoding="utf-8")


def read_losses(folder: Path) -> list[Loss]:
    """What the sources of a night lost, where it was more than the recipe's share."""
    return [Loss(**loss) for loss in json.loads((folder / LOSSES).read_text(encoding="utf-8"))]
