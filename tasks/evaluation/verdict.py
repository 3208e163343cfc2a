"""What the gate found: whether the champion alias moves, why, and every number behind it, as decision.json keeps it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from tasks.evaluation.limits import Check, lost_before
from tasks.evaluation.resampling import Estimate
from tasks.pages.text import plural

TOLD = 3
"""Obstacles that a reason names; of more it gives the number."""


@dataclass(frozen=True)
class DomainVerdict:
    """Challenger minus champion in a domain, and whether it is worse by more than may be."""

    name: str
    """Kind and domain, `chat/chat`."""
    difference_bpb: float
    lower_bpb: float
    """Bounds that hold in all domains together, by Bonferroni's correction; NaN where the domain is not judged."""
    upper_bpb: float
    tolerance_bpb: float
    """What the upper bound must not be above."""
    passed: bool
    documents: int
    clusters: int
    judged: bool = True
    """False if there are too few clusters."""
    carried_bpb: float = 0.0
    """How much worse the champion is there than the best one before it, see `tasks/evaluation/limits.py`."""

    @property
    def lost_bpb(self) -> float:
        """The same of the challenger; where it is not judged, nothing is known that the champion had not lost."""
        return max(0.0, self.carried_bpb + self.difference_bpb) if self.judged else self.carried_bpb

    @property
    def sentence(self) -> str:
        """In words."""
        where = f"in {self.name} ({plural(self.documents, 'document')} in {plural(self.clusters, 'cluster')})"
        if not self.judged:
            return f"{where} there is too little to judge by (promote.min_domain_clusters)"
        return (
            f"{where} it is {self.difference_bpb:+.4f} bits per byte, between {self.lower_bpb:+.4f} and "
            f"{self.upper_bpb:+.4f}{lost_before(self.carried_bpb)}, allowed up to {self.tolerance_bpb:+.4f} "
            "(promote.max_domain_loss_share)"
        )


def judged(name: str, found: Estimate | None, plain_bpb: float, champion_bpb: float, documents: int, clusters: int,
           max_loss_share: float, alpha: float, carried_bpb: float) -> DomainVerdict:  # fmt: skip
    """The verdict on a domain.

    A domain passes if its upper bound is within the tolerance: not "nothing worse was shown", which a small domain
    always passes, but "it is shown to be no worse than that". So that an equal model is not refused for want of
    documents for ever, the tolerance is never below what they can tell apart: twice the half width of the bound. Then
    an equal model is refused, and one that is worse by the tolerance passes, with a probability of `alpha` each. What
    is carried counts without a bound: small losses that no night can tell from chance add up all the same.

    found: the difference; None if the domain has too few clusters, whose verdict is `plain_bpb` and no bound.
    champion_bpb: the champion's bits per byte there.
    alpha: of this domain's bounds: the error of all domains over their number.
    carried_bpb: what the champion lost there.
    """
    if found is None:
        nan = math.nan
        return DomainVerdict(
            name, plain_bpb, nan, nan, nan, True, documents, clusters, judged=False, carried_bpb=carried_bpb
        )
    lower, upper = found.lower(alpha), found.upper(alpha)
    tolerance = max(max_loss_share * champion_bpb, 2 * (upper - found.value))
    passed = upper <= tolerance and carried_bpb + found.value <= tolerance
    return DomainVerdict(
        name, found.value, lower, upper, tolerance, passed, documents, clusters, carried_bpb=carried_bpb
    )


@dataclass(frozen=True)
class Decision:
    """Whether the champion alias moves, and why."""

    promoted: bool
    reason: str
    difference_bpb: float = math.nan
    """Challenger minus champion; negative is better. Long texts are weighed down, see `promote.max_cluster_share`."""
    upper_bpb: float = math.nan
    """Upper confidence bound of the difference, at the error rate of the night."""
    waits: bool = False
    """Whether it is for a person to decide."""
    lower_bpb: float = math.nan
    """Lower bound at the same rate: with the upper one the interval for people."""
    clearly_worse: bool = False
    """Whether the lower bound is above zero: the challenger is worse, not merely not shown to be better."""
    refused: bool = False
    """Whether it is better, and a limit or a domain refused it."""
    minimum_detectable_bpb: float = math.nan
    """The gain that would have been shown four times in five."""
    alpha: float | None = None
    """What the comparison spent of the error budget; None if nothing was compared."""
    checks: Sequence[Check] = field(default=())
    domains: Sequence[DomainVerdict] = field(default=())

    @property
    def losses(self) -> dict[str, float]:
        """By name of check and domain, how much worse the model is than the best champion before it."""
        by_check = {check.name: check.lost for check in self.checks if check.lost is not None}
        return by_check | {verdict.name: verdict.lost_bpb for verdict in self.domains}

    def as_content(self) -> dict[str, object]:
        """Plain values; what is not a number is None."""
        return {name: plain(value) for name, value in asdict(self).items()}


def plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def obstacles(checks: Sequence[Check], domains: Sequence[DomainVerdict]) -> str:
    """What limits and domains refuse, in words, bounded; empty if they refuse nothing."""
    told = [verdict.sentence for verdict in domains if not verdict.passed]
    told += [check.sentence for check in checks if not check.passed]
    more = [f"{len(told) - TOLD} more"] if len(told) > TOLD else []
    return "; ".join([*told[:TOLD], *more])
