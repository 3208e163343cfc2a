"""What was decided of each version of a recipe's model and who moved the champion alias, as lines for people."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tasks.in_use.version import registry_in_use
from tasks.pages.text import one_line, plural
from tasks.settings import Settings
from tasks.tracking.moves.ledger import Attempt
from tasks.tracking.registry import Registry
from tasks.tracking.versions import CHALLENGER, CHAMPION, PREVIOUS, ROLLED_BACK, VERDICT

NEWEST = 20
"""Lines that are shown unless all are asked for."""
WHY_CHARACTERS = 400
DONE = {"night": "champion, by a night", "by hand": "champion, by hand", "rollback": "champion again, by a rollback"}


@dataclass(frozen=True)
class Event:
    """One line of the audit trail."""

    at_ms: int
    """Milliseconds since the epoch."""
    version: int
    what: str
    who: str
    why: str
    evidence: Mapping[str, object] = field(default_factory=dict)

    def as_text(self) -> str:
        at = datetime.fromtimestamp(self.at_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")
        numbers = ", ".join(f"{name} {shown(value)}" for name, value in self.evidence.items())
        why = one_line(self.why, WHY_CHARACTERS)
        by = f" ({one_line(self.who)})" if self.who else ""
        return f"{at}  version {self.version}: {self.what}{by}\n    {why}" + (f"\n    {numbers}" if numbers else "")


def shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value).lower()


def audit_lines(recipe: str | None, everything: bool = False) -> Iterator[str]:
    """The aliases of a recipe's model now, then what was decided and done, oldest first; the newest NEWEST of it.

    recipe: may be None if one recipe alone has a registered model.
    Raises NightStopped if no model is registered, StoreAway if the registry does not answer.
    """
    registry = registry_in_use(Settings.load(), recipe)
    held = {alias: registry.version_of(alias) for alias in (CHAMPION, CHALLENGER, PREVIOUS)}
    yield f"{registry.model}: " + ", ".join(f"{alias} {number or 'none'}" for alias, number in held.items())
    attempts = registry.moves.attempts()
    events = sorted([*moves(attempts), *verdicts(registry, attempts)], key=lambda event: event.at_ms)
    left_out = 0 if everything else max(0, len(events) - NEWEST)
    if left_out:
        yield f"{plural(left_out, 'earlier line')} left out; --all shows them"
    for event in events[left_out:]:
        yield event.as_text()
    last = next((attempt for attempt in reversed(attempts) if attempt.outcome == "done"), None)
    if last and last.to != held[CHAMPION]:
        yield (
            f"since then: {CHAMPION} is {held[CHAMPION] or 'no version'}, moved in the registry itself, which does not "
            "note by whom"
        )


def moves(attempts: list[Attempt]) -> Iterator[Event]:
    """Every attempt on the champion alias."""
    for one in attempts:
        instead = f" in place of version {one.instead_of}" if one.instead_of else ""
        if one.outcome == "done":
            what = f"{DONE[one.how]}{instead}"
        elif one.outcome == "lost":
            what = f"not made champion{instead}, as another came first: {one.lost_to}"
        else:
            what = f"to be champion{instead}; whoever did it was interrupted, and the next one settles it"
        yield Event(one.at_ms, one.to, what, one.who, one.why, one.evidence)


def verdicts(registry: Registry, attempts: list[Attempt]) -> Iterator[Event]:
    """What nights decided of versions that they did not try to promote, and what was taken out of use."""
    tried = {attempt.to for attempt in attempts if attempt.how == "night"}
    for version in registry.all_versions():
        number = int(version.version)
        if number not in tried:
            verdict = verdict_of(version)
            evidence = verdict.get("evidence", {})
            what = "refused, by a limit" if evidence.get("refused") else "registered, not promoted"
            why = verdict.get("why") or str(version.description or "")
            yield Event(int(version.creation_timestamp), number, what, str(verdict.get("who", "")), why, evidence)
        if note := version.tags.get(ROLLED_BACK):
            what = "out of use: no night promotes these weights again"
            yield Event(int(version.last_updated_timestamp), number, what, "", f"rolled back {note}")


def verdict_of(version: Any) -> dict[str, Any]:
    """Empty for a version of an earlier release."""
    try:
        return dict(json.loads(version.tags.get(VERDICT, "{}")))
    except (ValueError, TypeError):
        return {}
