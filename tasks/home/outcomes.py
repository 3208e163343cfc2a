"""How each night ended, a line of the journal each: what pages over all nights, alarms and the error budget read.

A night that goes on after an interruption, or whose model is judged again, notes its end again under the same key: the
last one counts. What ended without a model counts each time, whatever came of the same data later; and so does a
skipped night, and one that ended before its data was known, which has no key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tasks.home.journal import Journal

NIGHT_ENDED = "night"
"""The event of such lines in the journal."""
SKIPPED = "skipped"
COUNT_EACH_TIME = (SKIPPED, "failed", "diverged", "stopped")
"""Endings that no later one of the same data stands for."""
Ending = Literal["promoted", "kept", "waits", "refused", "skipped", "failed", "diverged", "stopped", "interrupted"]
"""promoted: the model became champion; kept: the champion stays, on evidence or for want of it; waits: for a person or
the registry; refused: by a limit, or an export that is not read right; skipped: nothing was new; failed: a fault of
the program; diverged: training came to no number; stopped: for a reason in data, recipe or disk; interrupted: by a
person."""


@dataclass(frozen=True, kw_only=True)
class NightOutcome:
    """One night in one line."""

    recipe: str
    key: str
    day: str
    """On which it was opened first, in UTC, as 2026-11-28."""
    at: str
    """When it ended, in UTC, as ISO 8601 has it."""
    ending: Ending
    reason: str
    """Why, in one sentence."""
    run_id: str = ""
    """The night's parent run; empty for one that was skipped."""
    version: int | None = None
    """What it registered."""
    bits_per_byte: float | None = None
    """Of its model on the validation documents."""
    difference_bpb: float | None = None
    """Challenger minus champion, with its two-sided interval below; None where nothing was compared."""
    lower_bpb: float | None = None
    upper_bpb: float | None = None
    validation: str = ""
    """Version of the validation side that the scores are on."""
    rows: int | None = None
    """On the train side, all nights together."""
    new_bytes: int | None = None
    """Raw bytes that no earlier night had read."""
    home_bytes: int | None = None
    """Disk that the home takes, at the end of the night."""
    seconds: float | None = None
    """From its opening to its end, of this run."""
    went_back: str = ""
    """Why the trunk went back to the champion's, where it did."""

    def note(self, journal: Journal) -> None:
        """Append it to the journal."""
        journal.note(event=NIGHT_ENDED, **dataclasses.asdict(self))


def verdict(decision: Mapping[str, object]) -> Ending:
    """In a word, of a decision as the register stage noted it, without a version where it waits for the registry."""
    if decision["promoted"]:
        return "promoted"
    if decision.get("refused"):
        return "refused"
    return "waits" if decision["version"] is None or decision.get("waits") else "kept"


def outcomes(entries: Iterable[Mapping[str, Any]], recipe: str | None = None) -> list[NightOutcome]:
    """How nights ended, each once, in order of time, from lines of the journal, oldest first; of one recipe or of all.

    Lines of an unknown form are passed over: an older or newer release wrote them.
    """
    found: dict[tuple[str, str, str], NightOutcome] = {}
    for outcome in noted(entries):
        if recipe in (None, outcome.recipe):
            of_its_own = outcome.at if outcome.ending in COUNT_EACH_TIME or not outcome.key else ""
            found.pop((outcome.recipe, outcome.key, of_its_own), None)
            found[outcome.recipe, outcome.key, of_its_own] = outcome
    return list(found.values())


def noted(entries: Iterable[Mapping[str, Any]]) -> Iterator[NightOutcome]:
    """Every line that tells how a night ended, in order."""
    fields = {field.name for field in dataclasses.fields(NightOutcome)}
    for entry in entries:
        if entry.get("event") == NIGHT_ENDED:
            try:
                yield NightOutcome(**{name: value for name, value in entry.items() if name in fields})
            except TypeError:
                continue
