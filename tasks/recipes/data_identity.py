"""Which data a recipe's models learn from, and how it is parted: whether two of its models can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

NAMES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """What decides on which side, train or validation, a text was when a model was trained."""

    recipe: str
    split: Mapping[str, object]
    """Settings that decide on a text's side, by their keys in the recipe."""
    sources: Mapping[str, str]
    """Location of each source by its name."""

    def as_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> DataIdentity | None:
        """None for a text that is none, such as that of a version which somebody else registered."""
        try:
            found = cls(**json.loads(text))
            return cls(recipe=str(found.recipe), split=dict(found.split), sources=dict(found.sources))
        except (ValueError, TypeError):
            return None


def identity_from(name: str, split: Mapping[str, object], sources: list[dict[str, Any]]) -> DataIdentity:
    """From a recipe's name, the three settings of the split and the sources as plain values."""
    return DataIdentity(recipe=name, split=split, sources={source["name"]: source["location"] for source in sources})


def why_not_comparable(trained: DataIdentity | None, tonight: DataIdentity) -> str:
    """Why scores on tonight's validation documents say nothing about a model that was trained on other data; empty if
    they do.

    Sources that came since are no obstacle: the sides of the rows before stay.
    """
    if trained is None:
        return "nothing says which recipe and data it was trained on"
    if trained.recipe != tonight.recipe:
        return f"it is a model of recipe {trained.recipe!r:.80}, and this night is of {tonight.recipe!r:.80}"
    reasons = [
        f"{key} was {trained.split.get(key)!r:.80} then and is {tonight.split[key]!r:.80} now"
        for key in tonight.split
        if trained.split.get(key) != tonight.split[key]
    ]
    moved = [
        f"source {name} was {location!r:.120} then and is {tonight.sources.get(name, 'none')!r:.120} now"
        for name, location in trained.sources.items()
        if tonight.sources.get(name) != location
    ]
    more = len(moved) - NAMES_SHOWN
    reasons += moved[:NAMES_SHOWN] + ([f"{more} more differ"] if more > 0 else [])
    if reasons:
        return f"it was trained on other data and may have seen tonight's validation documents: {'; '.join(reasons)}"
    return ""
