"""A training stage as its curve tells it: loss, validation, learning rate, and what happened on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from model.dynamics.smoothing import smoothed
from tasks.pages.nights.charts import Chart, Event, Point, Series
from tasks.pages.nights.numbers import css_name, known, short_number
from tasks.pages.nights.words import Phrase, phrase

NAMED_EVENTS = ("experts", "roll_back", "branch", "mixture", "benign", "diverging", "no_number")
"""Kinds of events that the catalogue has words for; another shows its own."""
EVENTS_NAMED = 12
"""At most, below a chart; all are drawn."""
LOSS_OF_DOMAIN, TARGETS_OF_DOMAIN = "loss.domain.", "targets.domain."
END_SHARE = 0.1
"""Of the steps at either end of a curve, whose loss is its first and its last."""


@dataclass(frozen=True, kw_only=True)
class DomainLoss:
    """What the targets of a domain cost in training."""

    name: str
    """With the kind of its rows in front: `chat/en`."""
    share: float
    """Of all targets."""
    first: float | None
    """Nats per target over the first END_SHARE of the steps; None if they had no targets of it."""
    last: float | None


@dataclass(frozen=True, kw_only=True)
class StageEvent:
    """Something that happened after a step of a training stage."""

    step: int
    kind: str
    """One of NAMED_EVENTS, or a word of its own."""
    detail: str = ""

    @property
    def label(self) -> Phrase:
        detail = f": {self.detail}" if self.detail else ""
        name = phrase(f"event.{self.kind}") if self.kind in NAMED_EVENTS else self.kind
        return phrase("event.at", what=name, step=f"{self.step:,}", detail=detail)


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training stage's curve, plan, outcome and load of experts."""

    name: str
    points: Sequence[Mapping[str, float]] = ()
    """`step` and its metrics by name, in order of steps."""
    events: Sequence[StageEvent] = ()
    tokens: int | None = None
    plan: Mapping[str, float] = field(default_factory=dict)
    """`steps`, `seconds`, `peak_memory_mb`."""
    outcome: Mapping[str, float] = field(default_factory=dict)
    load: Sequence[Sequence[float]] = ()
    """Tokens routed to each expert of each layer (layers, experts); empty for a dense model."""

    @property
    def every_event(self) -> list[StageEvent]:
        """Those that were noted, and the changes of experts that the curve shows, in order of steps."""
        noted = {(event.step, event.kind) for event in self.events}
        changes = [
            StageEvent(step=int(p["step"]), kind="experts", detail=before_and_after(p))
            for p in self.points
            if "change/bpb_before" in p and (int(p["step"]), "experts") not in noted
        ]
        return sorted([*self.events, *changes], key=lambda event: event.step)

    @property
    def by_domain(self) -> list[DomainLoss]:
        """The loss of each domain, the largest first; nothing for a curve that does not say it."""
        steps = [point for point in self.points if "train/loss" in point]
        starts = len(TARGETS_OF_DOMAIN)
        names = sorted({key[starts:] for point in steps for key in point if key.startswith(TARGETS_OF_DOMAIN)})
        targets = {name: sum(point.get(TARGETS_OF_DOMAIN + name, 0.0) for point in steps) for name in names}
        end = max(1, round(END_SHARE * len(steps)))
        return [
            DomainLoss(
                name=name, share=targets[name] / sum(targets.values()),
                first=loss_of(steps[:end], name), last=loss_of(steps[-end:], name),
            )
            for name in sorted(names, key=lambda name: -targets[name])
        ]  # fmt: skip

    @property
    def named_events(self) -> list[StageEvent]:
        return self.every_event[:EVENTS_NAMED]

    @property
    def num_unnamed_events(self) -> int:
        return max(0, len(self.every_event) - EVENTS_NAMED)

    @property
    def charts(self) -> Iterator[Chart]:
        """Loss with its events, then the learning rate; nothing without a step."""
        trained = values_of(self.points, "train/loss")
        if not trained:
            return
        loss = [Point(p.x, float(y)) for p, y in zip(trained, smoothed([p.y for p in trained]), strict=True)]
        validated, rates = values_of(self.points, "val/loss"), values_of(self.points, "train/lr")
        series = [
            Series(label=phrase("chart.raw"), points=trained, style="raw"),
            Series(label=phrase("chart.smoothed"), points=loss, style="smooth"),
        ]
        if validated:
            series.append(Series(label=phrase("chart.validation"), points=validated, style="dashed", marks=True))
        seen = phrase(
            "chart.loss_seen", steps=f"{len(trained):,}", first=short_number(loss[0].y), last=short_number(loss[-1].y),
            events=len(self.every_event),
        )  # fmt: skip
        yield self._chart("loss", seen, phrase("chart.nats"), series, 270.0)
        if rates:
            seen = phrase("chart.rate_seen", highest=short_number(max(p.y for p in rates)))
            line = Series(label=phrase("chart.rate"), points=rates, style="step")
            yield self._chart("rate", seen, phrase("chart.rate"), [line], 150.0)

    def _chart(self, what: str, seen: Phrase, y_label: Phrase, series: Sequence[Series], height: float) -> Chart:
        return Chart(
            id=f"{what}-{css_name(self.name)}",
            title=phrase(f"chart.{what}_title", stage=self.name), description=seen,
            x_label=phrase("chart.step"), y_label=y_label, series=series, height=height, from_zero=what == "rate",
            events=[Event(event.step, event.label, event.kind) for event in self.every_event],
        )  # fmt: skip

    @property
    def load_shares(self) -> list[list[float]]:
        """Each expert's load over an equal share, by layer: 1 is an equal share."""
        return [[count * len(row) / (sum(row) or 1) for count in row] for row in self.load]

    @property
    def load_headings(self) -> list[tuple[Phrase | str, str]]:
        """Of the table of loads: the layer, then each expert's number."""
        most = max((len(row) for row in self.load), default=0)
        return [(phrase("column.layer"), "text"), *((str(expert), "number") for expert in range(most))]

    @property
    def plan_rows(self) -> list[tuple[str, float | None, float | None, float | None]]:
        """Key of its word, planned, actual, and actual over planned."""
        rows = []
        for name in ("steps", "seconds", "peak_memory_mb"):
            planned, actual = known(self.plan.get(name)), known(self.outcome.get(name))
            if planned is not None or actual is not None:
                ratio = actual / planned if planned and actual is not None else None
                rows.append((name, planned, actual, ratio))
        return rows


def values_of(points: Sequence[Mapping[str, float]], name: str) -> list[Point]:
    """A metric over the steps that have it."""
    return [Point(float(p["step"]), float(p[name])) for p in points if name in p and math.isfinite(p[name])]


def before_and_after(point: Mapping[str, float]) -> str:
    after = f" → {point['change/bpb_after']:.3f}" if "change/bpb_after" in point else ""
    return f"{point['change/bpb_before']:.3f}{after}"


def loss_of(points: Sequence[Mapping[str, float]], domain: str) -> float | None:
    """Nats per target of a domain over some steps; None if they had no targets of it."""
    own = [point for point in points if known(point.get(LOSS_OF_DOMAIN + domain)) is not None]
    targets = sum(point[TARGETS_OF_DOMAIN + domain] for point in own)
    nats = sum(point[LOSS_OF_DOMAIN + domain] * point[TARGETS_OF_DOMAIN + domain] for point in own)
    return nats / targets if targets else None
