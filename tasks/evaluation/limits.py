"""What a better model must not be worse in: limits that the recipe sets beside bits per byte, each one check.

Limits on how much worse than the champion a model may be hold for the champions of all nights together, not for each
by itself: else every champion could be a little worse than the one before. What a champion lost against the best one
before it is carried with its version, as the sum of what each comparison found on the documents of its night, and a
gain makes up for it. A person who promotes a version accepts what it lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from data.tokens.contamination import CONTAMINATED_FROM
from tasks.evaluation.measures.parity import MAX_LOGIT_DIFFERENCE, MIN_ROUTE_AGREEMENT
from tasks.recipes.stage_configs import PromoteConfig

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Check:
    """One limit and what was found."""

    name: str
    """Its setting in `promote`, or the figure that it is a limit of."""
    value: float | None
    """None if there was nothing to look at: the check is passed over, and says so."""
    limit: float
    passed: bool
    sentence: str
    lost: float | None = None
    """How much worse the model is than the best champion before it; None for a check that compares with none."""


def checks_of(
    ours: Figures, champion: Figures | None, scored: pl.DataFrame, config: PromoteConfig, carried: Figures
) -> list[Check]:
    """Every limit. Those that compare with the champion are passed over for a first model.

    ours, champion: figures of the evaluations, ours with those of the export; None if there is no champion.
    scored: the new model's documents, table of the evaluate stage.
    carried: what the champion lost, by name of the check.
    """

    def risen_by(name: str, figure: str, *, relative: bool = False, falls: bool = False) -> Check:
        return risen(name, figure, ours, champion, config, carried.get(name, 0.0), relative=relative, falls=falls)

    return [
        risen_by("max_pretrain_regression_share", "val/bpb.pretrain", relative=True),
        risen_by("max_more_dead_experts", "eval/dead_experts"),
        risen_by("max_repetition_rise", "eval/repetition_share"),
        risen_by("max_self_ending_fall", "eval/self_ending_share", falls=True),
        contaminated(scored, config.max_contaminated_share),
        bounded("export/logit_difference", ours, MAX_LOGIT_DIFFERENCE),
        bounded("export/route_agreement", ours, MIN_ROUTE_AGREEMENT, least=True),
    ]


def passed_over(name: str, limit: float, why: str, lost: float | None = None) -> Check:
    return Check(name, None, limit, True, f"{name} was not looked at: {why}", lost)


def lost_before(carried: float) -> str:
    """Words for what the champion lost; empty if nothing."""
    return f", beside {carried:+.4g} that the champion lost against the best one before it" if carried else ""


def risen(
    name: str, figure: str, ours: Figures, champion: Figures | None, config: PromoteConfig, carried: float, *,
    relative: bool = False, falls: bool = False,
) -> Check:  # fmt: skip
    """How much worse a figure is than the champion's: how much higher, or lower if it `falls`; as a share of the
    champion's if `relative`. `carried`: how much worse the champion's is than the best one's before it."""
    limit = float(getattr(config, name))
    if champion is None:
        return passed_over(name, limit, "there is no champion to compare with")
    for whose, figures in (("new model's", ours), ("champion's", champion)):
        if figure not in figures:
            return passed_over(name, limit, f"the {whose} evaluation has no {figure}", carried)
    worse = champion[figure] - ours[figure] if falls else ours[figure] - champion[figure]
    value = worse / champion[figure] if relative and champion[figure] else worse
    told = f"{figure} is {ours[figure]:.4g}, the champion's {champion[figure]:.4g}: {value:+.4g} worse"
    told += f"{lost_before(carried)}, allowed {limit:g} (promote.{name})"
    return Check(name, value, limit, carried + value <= limit, told, max(0.0, carried + value))


def contaminated(scored: pl.DataFrame, limit: float) -> Check:
    """Share of the documents' bytes that lie in documents which the train side repeats."""
    name, total = "max_contaminated_share", int(scored["num_bytes"].sum())
    if not total:
        return passed_over(name, limit, "no document was scored")
    repeated = scored.filter(pl.col("contaminated_share") >= CONTAMINATED_FROM)["num_bytes"].sum()
    value = float(repeated) / total
    told = f"{value:.1%} of the validation bytes stand in documents that the train side repeats"
    return Check(name, value, limit, value <= limit, f"{told}, allowed {limit:.1%} (promote.{name})")


def bounded(figure: str, ours: Figures, limit: float, *, least: bool = False) -> Check:
    """A figure against a limit that no recipe sets; `least` if it may not be lower."""
    if figure not in ours:
        return passed_over(figure, limit, f"there is no {figure}")
    value = ours[figure]
    passed = value >= limit if least else value < limit
    return Check(figure, value, limit, passed, f"{figure} is {value:.4g}, the limit is {limit:g}")
