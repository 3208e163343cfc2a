"""The table of stages: the one place that knows which there are, in which order, and which of them train what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """A stage as others must know it: plans, nights, questions and trials read this and never a stage's name."""

    name: str
    """In records, folders, tags and messages. A training stage's settings are the recipe's field of this name."""
    kind: str = ""
    """Which rows it trains on, `pretrain` or `chat`; empty for a stage that trains nothing."""
    starts_from: str = ""
    """The training stage whose weights it begins with; empty for one that begins from scratch."""
    of_night: bool = True
    """Whether every night runs it; a trial's stages are run on demand."""

    @property
    def trains(self) -> bool:
        return bool(self.kind)

    @property
    def module(self) -> str:
        """Where its function lies, which has the stage's name."""
        folder = "stages" if self.of_night else "trials"
        return f"tasks.{folder}.{self.function}"

    @property
    def function(self) -> str:
        return self.name.replace("-", "_")


STAGES = (
    StageEntry(name="validate"),
    StageEntry(name="deduplicate"),
    StageEntry(name="split"),
    StageEntry(name="tokens"),
    StageEntry(name="inspect"),
    StageEntry(name="pretrain", kind="pretrain"),
    StageEntry(name="sft", kind="chat", starts_from="pretrain"),
    StageEntry(name="evaluate"),
    StageEntry(name="register"),
    StageEntry(name="find-lr", of_night=False),
)
"""In the order in which a night runs them."""
TRAINING_STAGES = tuple(entry for entry in STAGES if entry.trains)
"""Each starts from scratch or from an earlier one; the last one's model is the night's."""


def entry_of(name: str) -> StageEntry:
    """The stage of a name. Raises KeyError if there is none."""
    return {entry.name: entry for entry in STAGES}[name]
