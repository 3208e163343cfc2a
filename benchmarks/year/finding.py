"""What a fault of the year came to, and the year as the faults see it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from benchmarks.year.home import Ended, YearHome
from tasks.errors import NightBusy
from tasks.night.report import NightReport
from tasks.night.skipping import SkippedNight

TEXTS, CHATS = 13, 6
"""New rows a night, about."""
SPARE_SHARE = 0.12
"""Of the nights' rows, for faults that deliver more."""
FIRST_TEXTS, FIRST_CHATS = 700, 400


def rows_of_year(nights: int) -> tuple[int, int]:
    """Texts and conversations that so many nights take, with their faults."""
    every_night = nights * (1 + SPARE_SHARE)
    return FIRST_TEXTS + math.ceil(every_night * TEXTS), FIRST_CHATS + math.ceil(every_night * CHATS)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Whether a fault was found and came to no harm."""

    message: str
    """The sentence by which it was found; empty if it was not."""
    wrong: tuple[str, ...] = ()
    """What else is not as it should be."""

    @property
    def found(self) -> bool:
        return bool(self.message) and not self.wrong


@dataclass
class Year:
    """The home and its calendar."""

    home: YearHome
    nights: int
    start: datetime
    rng: np.random.Generator
    slept: timedelta = timedelta(0)
    """Days without a night."""
    silent: list[datetime] = field(default_factory=list)
    """Nights that left no line in the journal."""

    def season(self, at: datetime) -> float:
        return min(1.0, (at - self.start) / timedelta(days=self.nights))

    def deliver(self, at: datetime, share: float = 1.0) -> None:
        """The rows of a day."""
        size = self.rng.uniform(0.7, 1.3) * share
        self.home.deliver(*self.home.corpus.deal(self.season(at), round(TEXTS * size), round(CHATS * size), self.rng))

    def night(self, at: datetime, **parameters: Any) -> Ended:
        """A night in this process; one that leaves no line in the journal is counted as silent."""
        before = self.home.last_outcome()
        ended = self.home.night(at, **parameters)
        if self.home.last_outcome() == before and not isinstance(ended.error, NightBusy):
            self.silent.append(at)
        return ended

    def good_night(self, at: datetime, wrong: list[str], what: str = "the night", **parameters: Any) -> Ended:
        """A night that must come to its end."""
        ended = self.night(at, **parameters)
        if not isinstance(ended.came, NightReport):
            wrong.append(f"{what} did not come to its end: {ended.said[-1] or ended.came}")
        return ended

    def stopped_night(self, at: datetime, wrong: list[str], what: str, **parameters: Any) -> Ended:
        """A night that must not come to its end."""
        ended = self.night(at, **parameters)
        if ended.error is None:
            wrong.append(f"{what}, and the night came to its end")
        return ended

    def champion(self) -> int | None:
        return self.home.registry.champion_number()


def is_skipped(ended: Ended) -> bool:
    return isinstance(ended.came, SkippedNight)
