"""What the training loss of a stage did, in words and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model.dynamics.trend import WINDOW_STEPS, Phase, PhaseWatch, flat_by_schedule


def trend_summary(points: Sequence[Mapping[str, float]]) -> list[str]:
    """The phase at the end of a curve, since when, and the slope over the last WINDOW_STEPS steps with its interval;
    nothing for a curve that is too short for one."""
    made = [point for point in points if "train/loss" in point]
    watch = PhaseWatch()
    for point in made:
        watch.add(int(point["step"]), point["train/loss"])
    slope, spans = watch.slope(), watch.spans
    if slope is None or not spans:
        return []
    now = spans[-1]
    by_schedule = now.phase is Phase.FLAT and flat_by_schedule(slope, [point["train/lr"] for point in made])
    because = ", as its learning rate is spent" if by_schedule else ""
    figures = f"{slope.nats_per_thousand_steps:+.3f} ({slope.low:+.3f} to {slope.high:+.3f})"
    since = f"training loss {now.phase.value} since step {now.since_step:,}{because}"
    return [f"{since}: {figures} nats per 1,000 steps over the last {min(WINDOW_STEPS, slope.length_steps):,}"]
