"""How often chance may promote in a year, and what of it a night may spend: online alpha spending.

Each comparison is another hypothesis, "this challenger is no better", tested on the same frozen documents: no evidence
adds up from night to night, so bounds that are valid for one hypothesis at all times, and e-values, have nothing to
accumulate, and a new champion ends what they had. What does hold, however the nights depend on each other, is that the
expected number of false promotions is at most the sum of the error rates that were allowed, if each is fixed before its
night is looked at (alpha spending, arXiv 1910.04900).

The rates are paid from an account. It gains the year's budget day by day, but for a twelfth that it begins with and
never holds more than; a comparison spends a thirtieth of what it holds. So no span of 365 days spends more than the
budget, whatever happens in it; a recipe that runs every night spends about a 365th a night, one that runs every hour
less each time, and a night without a comparison, skipped or failed, nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.evaluation.past import PastDecision

YEAR_DAYS = 365
HELD_SHARE = 1 / 12
"""The most that the account holds, of the year's budget: about what thirty nights spend."""
SPENT_SHARE = 1 / 30
"""What a comparison spends of what the account holds."""
EXCESS = 2.0
"""How much more often than it says a bound of a few hundred documents may fail: measured, up to 1.9 times."""


@dataclass(frozen=True)
class Allowance:
    """What tonight's comparison may spend."""

    alpha: float
    """Probability of promoting a model that is no better: what is spent."""
    spent_in_a_year: float
    """By the comparisons of the 365 days before: expected false promotions at most."""
    budget: float
    """Of a year."""

    @property
    def level(self) -> float:
        """At which the bounds are taken, so that they fail as often as is paid for."""
        return self.alpha / EXCESS

    @property
    def sentence(self) -> str:
        return (
            f"{self.alpha:.4f} of {self.budget:g} false promotions a year spent, {self.spent_in_a_year:.4f} in the "
            f"{YEAR_DAYS} days before"
        )


def allowance(past: Sequence[PastDecision], now: datetime, budget: float) -> Allowance:
    """What may be spent now.

    past: comparisons of the same recipe, in the order in which they were made.
    budget: expected false promotions in 365 days at most. A lower one than before starts with an empty account at
        worst: what was spent under another promise is not owed.
    """
    gain_a_day = budget * (1 - HELD_SHARE) / YEAR_DAYS
    held, since = budget * HELD_SHARE, past[0].at if past else now
    for decision in past:
        held = max(0.0, grown(held, decision.at - since, gain_a_day, budget) - decision.alpha)
        since = max(since, decision.at)
    held = grown(held, now - since, gain_a_day, budget)
    year_ago = now - timedelta(days=YEAR_DAYS)
    spent = sum(decision.alpha for decision in past if decision.at > year_ago)
    return Allowance(alpha=held * SPENT_SHARE, spent_in_a_year=spent, budget=budget)


def grown(held: float, time: timedelta, gain_a_day: float, budget: float) -> float:
    """What the account holds after a time; a clock that was set back gains nothing."""
    days = max(0.0, time / timedelta(days=1))
    return min(held + gain_a_day * days, budget * HELD_SHARE)
