"""Is the challenger better? Bounds of the paired difference, domain by domain too, limits, and a reason in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from tasks.evaluation.budget import Allowance
from tasks.evaluation.enough import why_too_few
from tasks.evaluation.limits import Figures, checks_of
from tasks.evaluation.resampling import Estimate, differences, paired
from tasks.evaluation.verdict import Decision, DomainVerdict, judged, obstacles
from tasks.pages.text import plural
from tasks.recipes.stage_configs import PromoteConfig


@dataclass(frozen=True)
class Evidence:
    """What a decision goes by, beside the documents and the recipe."""

    allowance: Allowance
    """What tonight's comparison may spend of the error budget."""
    ours: Figures
    """Figures of the new model's evaluation and export."""
    champion: Figures | None = None
    """Those of the champion's evaluation."""
    most_gained_bpb: float | None = None
    """The largest gain that any comparison of the recipe measured; None if there was none."""
    carried: Figures = field(default_factory=dict)
    """How much worse the champion is than the best one before it, by name of check and domain."""


def per_byte(table: pl.DataFrame, bits: str) -> float:
    """A column in bits over all documents, per byte of them."""
    return float(table[bits].sum()) / float(table["num_bytes"].sum())


def domains_of(
    table: pl.DataFrame, found: Sequence[Estimate], config: PromoteConfig, carried: Figures
) -> list[DomainVerdict]:
    """The verdict on each domain of documents that both models scored, in the order of their names.

    found: differences in those domains that are judged.
    carried: what the champion lost, by domain.
    """
    by_name = {difference.name: difference for difference in found}
    alpha = config.domain_error_share / max(1, len(found))
    return [
        judged(
            str(name), by_name.get(str(name)), per_byte(its, "bits"),
            per_byte(its, "champion_bits"), len(its), its["cluster"].n_unique(),
            config.max_domain_loss_share, alpha, carried.get(str(name), 0.0),
        )
        for (name,), its in sorted(table.group_by("domain"))
    ]  # fmt: skip


def sizeable_domains(table: pl.DataFrame, config: PromoteConfig) -> list[str]:
    """Domains that are judged by themselves, in the order of their names."""
    clusters = table.group_by("domain").agg(pl.col("cluster").n_unique())
    return sorted(clusters.filter(pl.col("cluster") >= config.min_domain_clusters)["domain"])


def decide(
    challenger: pl.DataFrame, champion: pl.DataFrame | None, config: PromoteConfig, evidence: Evidence
) -> Decision:
    """Promote the first model, and one that is better on the same documents, no worse in any domain, within all limits.

    Neither on fewer documents than the recipe asks for, nor unless its mode is `auto`.

    challenger: score of each validation document, the table of the evaluate stage.
    champion: the same of the model in use; None if there is none.
    config: the least documents, the gain, limits, and who promotes.
    evidence: the error rate of the night, and figures for the limits.
    """
    if "cluster" not in challenger.columns:
        reason = f"nothing was compared: {plural(len(challenger), 'score')} of an earlier release name no clusters"
        return Decision(False, f"{reason}; run the night again, which scores anew", waits=True)
    if champion is None:
        return first_model(challenger, config, evidence)
    table = paired(challenger, champion)
    if not len(table):
        reason = "champion and challenger share no validation document, so nothing was compared"
        return Decision(False, reason, waits=True)
    plain = per_byte(table, "bits")
    clusters, num_bytes = table["cluster"].n_unique(), int(table["num_bytes"].sum())
    found = f"{plain:+.4f} bits per byte against the champion, but"
    if too_few := why_too_few(len(table), num_bytes, found, config, clusters=clusters):
        return Decision(False, too_few, plain, waits=True)
    if broken := table.filter(~pl.col("bits").is_finite()).height:
        of_champion = table.filter(~pl.col("champion_bits").is_finite()).height
        reason = (
            f"not shown to be better: of {plural(len(table), 'document')} {broken:,} have a score that is no number, "
            f"{of_champion:,} of them the champion's"
        )
        return Decision(False, reason, waits=of_champion > 0, clearly_worse=not of_champion)
    alone = sum(int((scored["num_bytes"] > 0).sum()) for scored in (challenger, champion)) - 2 * len(table)
    return as_asked(compared(table, challenger, alone, config, evidence), config)


def first_model(challenger: pl.DataFrame, config: PromoteConfig, evidence: Evidence) -> Decision:
    """The decision where there is no champion: the limits that need none."""
    spoken = challenger.filter(pl.col("num_bytes") > 0)
    counted = len(spoken), int(spoken["num_bytes"].sum())
    found = "there was no champion to compare with, and"
    if too_few := why_too_few(*counted, found, config, clusters=spoken["cluster"].n_unique()):
        return Decision(False, too_few, waits=True)
    checks = checks_of(evidence.ours, None, challenger, config, {})
    reason = "first model: there was no champion to compare with"
    if against := obstacles(checks, ()):
        return Decision(False, f"{reason}, but refused: {against}", refused=True, checks=checks)
    return as_asked(Decision(True, reason, checks=checks), config)


def compared(
    table: pl.DataFrame, challenger: pl.DataFrame, alone: int, config: PromoteConfig, evidence: Evidence
) -> Decision:
    """The decision on documents that both models scored; `alone` scores are of documents that one of them has."""
    overall, *rest = differences(table, sizeable_domains(table, config), config)
    level = evidence.allowance.level
    lower, upper = overall.lower(level), overall.upper(level)
    detectable = overall.detectable(level) + config.min_gain_bpb
    better, worse = upper < -config.min_gain_bpb, lower > 0
    domains = domains_of(table, rest, config, evidence.carried)
    checks = checks_of(evidence.ours, evidence.champion, challenger, config, evidence.carried)
    against = obstacles(checks, domains)
    verdict = "better, but refused" if better and against else "better" if better else "not shown to be better"
    told = [
        f"{'worse' if worse else verdict}: {overall.value:+.4f} bits per byte against the champion on "
        f"{plural(len(table), 'document')}, upper bound {upper:+.4f}, needed below {0.0 - config.min_gain_bpb:+.4f}, "
        f"lower bound {lower:+.4f}",
        *([against] if against else []),
        evidence.allowance.sentence,
        f"a gain of {detectable:.4f} would be shown four times in five{never_gained(detectable, overall, evidence)}",
        *([f"{plural(alone, 'score')} of documents that only one of them has count for nothing"] if alone else []),
    ]
    return Decision(
        promoted=better and not against, reason="; ".join(told), difference_bpb=overall.value, upper_bpb=upper,
        lower_bpb=lower, clearly_worse=worse, refused=better and bool(against), minimum_detectable_bpb=detectable,
        alpha=evidence.allowance.alpha, checks=checks, domains=domains,
    )  # fmt: skip


def never_gained(detectable_bpb: float, overall: Estimate, evidence: Evidence) -> str:
    """A warning that a gain must be larger than all that there ever were; empty if not, or if nothing is known."""
    if evidence.most_gained_bpb is None:
        return ""
    most = max(evidence.most_gained_bpb, -overall.value, 0.0)
    if detectable_bpb <= most:
        return ""
    return (
        f", more than any night ever gained ({most:.4f}): the gate can hardly pass; raise split.val_share or "
        "split.val_bytes_per_slice"
    )


def as_asked(found: Decision, config: PromoteConfig) -> Decision:
    """The same decision, held back if the recipe does not promote by itself."""
    if not found.promoted or config.mode == "auto":
        return found
    why = "a person promotes it (promote.mode is ask, as with all overrides that do not name the mode)"
    if config.mode == "never":
        why = "promote.mode is never"
    return replace(found, promoted=False, reason=f"{found.reason}; {why}", waits=config.mode == "ask")
