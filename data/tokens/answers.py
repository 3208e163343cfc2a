"""How many answers of conversations packed rows hold, and how long rows must be to hold more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

ENOUGH = 0.99
"""Share of the answers that a row length is named for: the longest few would make rows long for all."""


@dataclass(frozen=True, kw_only=True)
class HeldAnswers:
    """Of one source, or of several. What has a weight counts as often as it stands on the train side."""

    conversations: int = 0
    unpacked: int = 0
    """Conversations that are in no packed row."""
    answers: int = 0
    """All that are to be learned."""
    needed: Mapping[int, int] = field(default_factory=dict)
    """Of the answers that are in no packed row: how many by the slots of the shortest row that holds them."""

    @property
    def lost(self) -> int:
        """Answers that are in no packed row."""
        return sum(self.needed.values())

    @property
    def lost_share(self) -> float:
        return self.lost / max(1, self.answers)

    def merge(self, other: HeldAnswers) -> HeldAnswers:
        return HeldAnswers(
            conversations=self.conversations + other.conversations, unpacked=self.unpacked + other.unpacked,
            answers=self.answers + other.answers, needed=Counter(self.needed) + Counter(other.needed),
        )  # fmt: skip

    def row_length_for(self, share: float) -> int:
        """Slots of the shortest row that holds this share of the answers; 0 if the rows there are do already."""
        held = self.answers - self.lost
        if held >= share * self.answers:
            return 0
        for length, count in sorted(self.needed.items()):
            held += count
            if held >= share * self.answers:
                return length
        return max(self.needed)

    def share_held_by(self, row_length_tokens: int) -> float:
        """Share of the answers that rows of this length, not shorter than those there are, hold."""
        longer = sum(count for length, count in self.needed.items() if length > row_length_tokens)
        return 1 - longer / max(1, self.answers)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"needed": {str(length): count for length, count in sorted(self.needed.items())}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HeldAnswers:
        return cls(**{**values, "needed": {int(length): count for length, count in values["needed"].items()}})
