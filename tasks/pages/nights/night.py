"""The page of one night: plain values in, one self-contained HTML file out.

Everything but the night's name and verdict may be missing; a section without its values says why it is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.pages.nights.charts import Interval, shared_scale
from tasks.pages.nights.curves import Training
from tasks.pages.nights.numbers import signed
from tasks.pages.nights.rendering import write_page
from tasks.pages.nights.words import Phrase, catalogue, phrase
from tasks.pages.text import format_share


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The night's model beside the champion, in bits per byte on the same documents; None where it is not known."""

    champion: int | None = None
    """Version that the model was compared with."""
    champion_bpb: float | None = None
    difference_bpb: float | None = None
    lower_bpb: float | None = None
    upper_bpb: float | None = None
    clearly_worse: bool = False
    minimum_detectable_bpb: float | None = None


@dataclass(frozen=True, kw_only=True)
class Domain:
    """What both models score on one domain."""

    name: str
    documents: int | None = None
    bpb: float | None = None
    champion_bpb: float | None = None
    difference_bpb: float | None = None
    lower_bpb: float | None = None
    upper_bpb: float | None = None
    tolerance_bpb: float | None = None
    passed: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """A limit of the gate, and what was measured."""

    name: str
    value: str
    limit: str
    passed: bool | None
    """None if there was nothing to compare with."""
    sentence: str = ""

    @property
    def outcome(self) -> str:
        """Its word in the catalogue, under `check`."""
        return {True: "passed", False: "failed", None: "passed_over"}[self.passed]


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that differs from the champion's night."""

    what: Phrase | str
    before: str
    now: str


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What both models answer to one prompt; None where the champion was not asked."""

    prompt: str
    now: str
    champion: str | None = None


@dataclass(frozen=True, kw_only=True)
class StageLine:
    """A stage of the night."""

    name: str
    seconds: float
    reused: bool
    headline: str
    run_id: str


@dataclass(frozen=True, kw_only=True)
class DataCounts:
    """Where the lines of raw data went, all nights together."""

    read: int
    kept: int
    exact: int
    near: int
    quarantined: int
    train_rows: int
    val_rows: int

    @property
    def parts(self) -> list[tuple[str, int, str]]:
        """Key of its word, count, and share of what was read."""
        named = (("kept", self.kept), ("exact", self.exact), ("near", self.near), ("quarantined", self.quarantined))
        return [(name, count, format_share(count, self.read)) for name, count in named]

    @property
    def unaccounted(self) -> int:
        return self.read - sum(count for _, count, _ in self.parts)


@dataclass(frozen=True, kw_only=True)
class NightFacts:
    """What a night's page is made of."""

    recipe: str
    key: str
    day: str
    run_id: str
    ending: str
    """`promoted`, `kept`, `waits` or `refused`."""
    reason: str
    version: int | None = None
    decided_at: str = ""
    """Where the decision is one of an earlier time: when it was made."""
    bpb: float | None = None
    bpb_bounds: tuple[float, float] | None = None
    """Where it would be on other documents of the same sources."""
    comparison: Comparison = Comparison()
    no_comparison: Phrase | None = None
    """Why nothing was compared; None if something was."""
    told: Sequence[str] = ()
    """Further sentences that a person must know: what holds now, what was lost, what to do."""
    changes: Sequence[Change] = ()
    no_changes: Phrase | None = None
    """Why nothing can be laid beside the champion's night; None if `changes` are all there are."""
    trainings: Sequence[Training] = ()
    domains: Sequence[Domain] = ()
    replies: Sequence[Reply] = ()
    expert_figures: Mapping[str, float] = field(default_factory=dict)
    """Of the evaluation, by metric: `eval/dead_experts`, `eval/load_entropy`, `eval/route_drift`."""
    quality_figures: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    """Further figures of the evaluation by metric: of the night's model, and of the champion if it has it."""
    data: DataCounts | None = None
    data_told: Sequence[str] = ()
    """Sentences on the validation side."""
    checks: Sequence[Check] = ()
    budget: Sequence[tuple[Phrase | str, str]] = ()
    audit: str = ""
    """A sentence on the audit slice."""
    stages: Sequence[StageLine] = ()
    parameters: int | None = None

    @property
    def better(self) -> Phrase:
        """Whether the night's model is better, with the numbers."""
        found = self.comparison
        if self.no_comparison or found.difference_bpb is None:
            return self.no_comparison or phrase("missing.comparison")
        known = "yes" if self.ending == "promoted" or (found.upper_bpb or 0) < 0 else "no"
        answer = "worse" if found.clearly_worse or (found.lower_bpb or 0) > 0 else known
        bounds = phrase("better.no_bounds")
        if found.upper_bpb is not None:
            lower = found.lower_bpb
            bounds = (
                phrase("better.upper", upper=signed(found.upper_bpb)) if lower is None
                else phrase("better.bounds", lower=signed(lower), upper=signed(found.upper_bpb))
            )  # fmt: skip
        than = str(found.champion) if found.champion else "–"
        return phrase(f"better.{answer}", difference=signed(found.difference_bpb), than=than, bounds=bounds)

    @property
    def scores(self) -> list[Phrase]:
        """What each model takes, as far as it is known."""
        told, champion = [], self.comparison.champion_bpb
        if self.bpb is not None:
            bounds = " – ".join(f"{bound:.4f}" for bound in self.bpb_bounds or ())
            told.append(phrase("better.score", bpb=f"{self.bpb:.4f}", bounds=bounds or phrase("better.no_bounds")))
        if champion is not None:
            told.append(phrase("better.champion_score", bpb=f"{champion:.4f}"))
        return told

    @property
    def worked(self) -> Phrase:
        if self.version is None:
            return phrase("worked.waits")
        if not any(not stage.reused for stage in self.stages):
            return phrase("worked.reused", version=self.version)
        return phrase("worked.yes", version=self.version)

    @property
    def seconds(self) -> float:
        """Of the stages that were not found done."""
        return sum(stage.seconds for stage in self.stages if not stage.reused)

    @property
    def tokens(self) -> int:
        """That the night's model was trained on, found done or not."""
        return sum(training.tokens or 0 for training in self.trainings)

    @property
    def peak_memory_mb(self) -> float | None:
        return max((t.outcome["peak_memory_mb"] for t in self.trainings if "peak_memory_mb" in t.outcome), default=None)

    @property
    def main_interval(self) -> Interval | None:
        """The difference as a drawing; None without one."""
        found = self.comparison
        if found.difference_bpb is None or self.no_comparison:
            return None
        return Interval(
            middle=found.difference_bpb, low=found.lower_bpb, high=found.upper_bpb,
            scale=shared_scale([found.difference_bpb, found.lower_bpb, found.upper_bpb]),
        )  # fmt: skip

    @property
    def domain_intervals(self) -> list[tuple[Domain, Interval | None]]:
        """Each domain with its difference drawn on a scale that all share."""
        values = [v for d in self.domains for v in (d.difference_bpb, d.lower_bpb, d.upper_bpb, d.tolerance_bpb)]
        scale = shared_scale(values)
        return [
            (
                d,
                None if d.difference_bpb is None else Interval(
                    middle=d.difference_bpb, low=d.lower_bpb, high=d.upper_bpb, limit=d.tolerance_bpb,
                    passed=d.passed is not False, scale=scale,
                ),
            )
            for d in self.domains
        ]  # fmt: skip

    @property
    def named_figures(self) -> list[tuple[Phrase | str, tuple[float, float | None]]]:
        """Figures of the evaluation by the catalogue's name for them, or their own."""
        names = {name: f"figure.{name.removeprefix('eval/')}" for name in self.quality_figures}
        return [
            (phrase(names[name]) if names[name] in catalogue() else name, values)
            for name, values in self.quality_figures.items()
        ]

    @property
    def has_intervals(self) -> bool:
        return any(domain.lower_bpb is not None for domain in self.domains)


def write_night_page(path: Path, facts: NightFacts) -> Path:
    """Write the page; returns its path."""
    return write_page(path, "nights/night.html.j2", night=facts)
