"""Watchers of a training stage: objects that see each step and each validation, and decide whether training goes on.

A new guard is a class here and an entry in `watchers_of`; the loop that asks them does not change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from model.training.state import NonFiniteLoss
from model.training.trainer import StepMetrics


class Action(Enum):
    """What happens after a step."""

    GO_ON = "go on"
    STOP = "stop"
    """Save a checkpoint and end with Interrupted: the same command goes on from here. After the last step, finish."""
    ROLL_BACK = "roll back"
    """Restore the newest checkpoint before the step, or the stage's start, and train on from there."""
    FAIL = "fail"
    """End with Diverged; the checkpoints stay as they are."""


@dataclass(frozen=True)
class Verdict:
    """A watcher's answer."""

    action: Action
    reason: str = ""
    """Why the stage does not simply go on; a message to people begins with it."""


GO_ON = Verdict(Action.GO_ON)


MOST_ROLLBACKS = 3
"""How often a stage rolls back to one checkpoint; a further request ends it."""


class Watcher(Protocol):
    """Looks at a training stage between its steps; a subclass overrides what it needs.

    After a roll back, step numbers continue from the restored checkpoint, for all watchers. Rows and weights are the
    same as the first time, so a watcher that judges by these alone asks for the same again: it must accept the step
    the second time, or change what is trained. MOST_ROLLBACKS bounds how often it can ask.
    """

    def after_step(self, step: StepMetrics, metrics: Mapping[str, float]) -> Verdict:
        """Called after each optimizer step with what it measured, and what a validation after it did.

        Figures over several steps are the watcher's own work: the meters' are for people and in no stage's key.
        """
        return GO_ON

    def after_validation(self, step_number: int, metrics: Mapping[str, float]) -> Verdict:
        """Called after each step that a validation follows, with the metrics of the validation alone."""
        return GO_ON

    def after_non_finite(self, step_number: int, error: NonFiniteLoss) -> Verdict:
        """Called when the loss or gradient of a step is not finite; the weights are those before the step.

        If no watcher rolls back, the stage fails: the same step would give the same loss.
        """
        return GO_ON


class StopRequest(Watcher):
    """Stops the stage when a person or the system has asked for it."""

    def __init__(self, requested: threading.Event) -> None:
        self.requested = requested

    def after_step(self, step: StepMetrics, metrics: Mapping[str, float]) -> Verdict:
        return Verdict(Action.STOP, "stopped as requested") if self.requested.is_set() else GO_ON


def watchers_of(stop_requested: threading.Event) -> list[Watcher]:
    """The watchers of every training stage, in order of precedence.

    A request to stop comes last, so that a step that another watcher rolls back is not saved; the request still stands
    after the next step.
    """
    return [StopRequest(stop_requested)]


def after_step(
    watchers: Iterable[Watcher], step: StepMetrics, metrics: Mapping[str, float], validation: Mapping[str, float]
) -> Verdict:
    """What happens after a step: the first watcher that does not go on decides. Every watcher sees every step.

    watchers: in order of precedence.
    metrics: what the step and a validation measured, by name.
    validation: what a validation after it measured, empty if there was none.
    """
    verdicts = []
    for watcher in watchers:
        verdicts.append(watcher.after_step(step, metrics))
        if validation:
            verdicts.append(watcher.after_validation(step.number, validation))
    return first_decision(verdicts, GO_ON)


def after_non_finite(watchers: Iterable[Watcher], step_number: int, error: NonFiniteLoss) -> Verdict:
    """What happens after a step whose loss is not finite: what the first watcher says that rolls back or fails, else
    FAIL. There is no state to go on with or to stop at."""
    verdicts = [watcher.after_non_finite(step_number, error) for watcher in watchers]
    decisive = [verdict for verdict in verdicts if verdict.action in (Action.ROLL_BACK, Action.FAIL)]
    return first_decision(decisive, Verdict(Action.FAIL, str(error)))


def first_decision(verdicts: Iterable[Verdict], otherwise: Verdict) -> Verdict:
    """The first verdict that is not to go on."""
    return next((verdict for verdict in verdicts if verdict.action is not Action.GO_ON), otherwise)
