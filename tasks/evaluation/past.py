"""What was decided before, read from the journal: what the error budget, its warnings and the audit go by."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tasks.home.journal import BY_HAND, DECIDED


@dataclass(frozen=True, kw_only=True)
class PastDecision:
    """One comparison of a challenger with its champion."""

    at: datetime
    promoted: bool
    alpha: float
    """The probability of a false promotion that it was allowed."""
    difference_bpb: float
    """Challenger minus champion on the documents that the gate sees."""
    audit_difference_bpb: float | None = None
    """The same on those that it never sees; None where there are none."""


def past_decisions(entries: Iterable[Mapping[str, Any]], recipe: str) -> list[PastDecision]:
    """Comparisons of a recipe, oldest first, from lines of the journal.

    Decisions without a comparison (a first model, nothing to compare with) and those of releases that kept no account
    spent nothing that is known, and are passed over.
    """
    fields = [field.name for field in dataclasses.fields(PastDecision)]
    found = []
    for entry in entries:
        if entry.get("event") == DECIDED and entry.get("recipe") == recipe and entry.get("alpha") is not None:
            values = {name: entry[name] for name in fields if name in entry}
            found.append(PastDecision(**values | {"at": datetime.fromisoformat(str(entry["at"]))}))
    return found


def carried_losses(entries: Iterable[Mapping[str, Any]], recipe: str, champion: int | None) -> dict[str, float]:
    """How much worse a champion is than the best one before it, by check and domain, from lines of the journal.

    As its own decision noted it; nothing for a version of an earlier release, and for one that a person promoted.
    """
    found: dict[str, float] = {}
    for entry in entries:
        if entry.get("recipe") == recipe and entry.get("version") == champion is not None:
            if entry.get("event") == DECIDED:
                found = dict(entry.get("losses") or {})
            elif entry.get("event") == BY_HAND and not entry.get("rolled_back"):
                found = {}
    return found


def now_utc() -> datetime:
    return datetime.now(UTC)
