"""What a source lost in a stage, told to a person."""

from __future__ import annotations

from dataclasses import dataclass


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
