"""What one run of one way was measured to take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory import Usage


@dataclass(frozen=True)
class Measurement:
    """One step of one side, once."""

    side: str
    step: str
    size_bytes: int
    """Asked for; what the corpus really holds is in `raw_bytes`."""
    raw_bytes: int
    repeat: int
    usage: Usage | None = None
    error: str = ""

    @property
    def mb_per_s(self) -> float:
        return self.raw_bytes / 1e6 / self.usage.seconds if self.usage else float("nan")


def raw_bytes(corpus: Path) -> int:
    return sum(path.stat().st_size for path in corpus.glob("*.jsonl"))
