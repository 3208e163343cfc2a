"""Tells of steps whose loss or gradient norm is unlike what is usual: what they were, and the rows that cost most."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from model.dynamics.spikes import Incident, Judgement, Look, SpikeDetector
from model.files import append_line, write_text
from model.tokens.packing import IGNORED, ShardedTokens
from model.training.state import NonFiniteLoss
from model.training.trainer import StepMetrics
from tasks.home.contents.story import NO_NUMBER, tell_event
from tasks.pages.nights.words import phrase
from tasks.pages.text import plural
from tasks.training.watching.groups import RowGroups, domains_in
from tasks.training.watching.watcher import GO_ON, Verdict, Watcher

INCIDENTS = "incidents.jsonl"
"""In a stage's logs: a line for each step that stood out most so far, and one for each incident that is over."""
ROWS_NAMED = 5
log = logging.getLogger("nightschool")


class SpikeWatcher(Watcher):
    """Follows the steps of a stage, those of earlier processes from its curve, and tells of each incident once."""

    def __init__(
        self, stage: str, logs: Path, tokens: ShardedTokens, groups: RowGroups,
        points: Callable[[], Sequence[Mapping[str, float]]],
    ) -> None:  # fmt: skip
        """stage, logs: its name and folder of logs; tokens, groups: the rows it reads; points: of its curve, whose last
        one is the step that is looked at."""
        self.stage, self.logs, self.tokens, self.groups, self.points = stage, logs, tokens, groups, points
        self.detector, self.last_step = SpikeDetector(), 0
        self._go_on_after(points())

    def after_step(self, step: StepMetrics, metrics: Mapping[str, float]) -> Verdict:
        if step.number != self.last_step + 1:  # rolled back: the curve has gone back with the state
            self._go_on_after(self.points()[:-1])
        self.last_step = step.number
        over = self.detector.add(look_at(step.number, metrics))
        now = over or self.detector.incident
        if now and now.peak_step == step.number:
            self._tell_evidence(step, now)
        if over:
            self._tell(step.number, over)
        return GO_ON

    def after_non_finite(self, step_number: int, error: NonFiniteLoss) -> Verdict:
        """Tell which rows gave no number; what follows is for others to decide."""
        bad = error.rows_B[~np.isfinite(error.nats_BT).all(axis=1)].tolist()
        told = "the loss of every row is finite, the gradient is not"
        if bad:
            more = f" and {plural(len(bad) - ROWS_NAMED, 'row')} more" if len(bad) > ROWS_NAMED else ""
            named = ", ".join(map(str, bad[:ROWS_NAMED]))
            told = f"no finite loss in {len(bad)} of {plural(len(error.rows_B), 'row')}: packed rows {named}{more}"
        tell_event(self.logs, step_number, NO_NUMBER, told)
        log.warning("%-11s step %d: %s", self.stage, step_number, told)
        return GO_ON

    def _go_on_after(self, points: Sequence[Mapping[str, float]]) -> None:
        """Be as after these steps, what was told of later ones is told again as they are made again."""
        self.detector, self.last_step = detector_after(points), int(points[-1]["step"]) if points else 0
        path = self.logs / INCIDENTS
        if path.exists():
            kept = [line for line in read_lines(path) if line["told_at_step"] <= self.last_step]
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def _tell_evidence(self, step: StepMetrics, incident: Incident) -> None:
        """Write down what the batch of a step was; it is there when the incident is over, in whatever process."""
        labels_BT = self.tokens.rows(step.rows_B).labels
        shares = self.groups.shares(self.groups.groups_of(step.rows_B, labels_BT.shape[1]))
        nats_B = step.nats_BT.sum(axis=1, dtype=np.float64) / np.maximum(1, (labels_BT != IGNORED).sum(axis=1))
        dearest = np.argsort(-nats_B, kind="stable")[:ROWS_NAMED]
        evidence: dict[str, Any] = {
            "told_at_step": step.number, "step": step.number, "loss": step.loss, "grad_norm": step.grad_norm,
            "loss_deviations": incident.loss_deviations, "norm_deviations": incident.norm_deviations,
            "shares": {name: {"batch": here, "expected": expected} for name, (here, expected) in shares.items()},
            "rows": [{"row": int(step.rows_B[place]), "loss": float(nats_B[place])} for place in dearest],
        }  # fmt: skip
        append_line(self.logs / INCIDENTS, evidence, flush=False)

    def _tell(self, step: int, incident: Incident) -> None:
        assert incident.judgement is not None
        told = {name: value for name, value in vars(incident).items() if name != "judgement"}
        told |= {"told_at_step": step, "judgement": incident.judgement.value}
        append_line(self.logs / INCIDENTS, told, flush=False)
        detail = summary(incident)
        tell_event(self.logs, incident.peak_step, incident.judgement.value, detail)
        what = phrase(f"event.{incident.judgement.value}").as_plain("en")
        level = logging.WARNING if incident.judgement is Judgement.DIVERGING else logging.INFO
        log.log(level, "%-11s step %d, %s: %s", self.stage, incident.peak_step, what, detail)


def detector_after(points: Iterable[Mapping[str, float]]) -> SpikeDetector:
    """A detector that has seen the steps of a curve; points without a step are validations."""
    detector = SpikeDetector()
    for point in points:
        if "train/loss" in point:
            detector.add(look_at(int(point["step"]), point))
    return detector


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file of one a line, but for a line that a kill has cut."""
    for line in path.read_bytes().splitlines():
        with suppress(ValueError):
            yield json.loads(line)


def look_at(step: int, metrics: Mapping[str, float]) -> Look:
    return Look(step, metrics["train/loss"], metrics["train/grad_norm"], domains_in(metrics))


def summary(incident: Incident) -> str:
    """What happened in one line: figures beside the usual ones, for how long, and where."""
    moved = f"; dearer than usual: {', '.join(incident.moved)}" if incident.moved else ""
    return (
        f"loss {incident.loss:.3f} (usual {incident.usual_loss:.3f}), gradient norm {incident.grad_norm:.3g} "
        f"(usual {incident.usual_grad_norm:.3g}), {plural(incident.num_steps, 'step')}{moved}"
    )
