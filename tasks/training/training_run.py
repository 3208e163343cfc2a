"""A training stage on its way: its state, curve and meters, and what is done with them between two steps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model.config.phases import Phase
from model.tokens.packing import ShardedTokens
from model.training import checkpoint
from model.training.checkpoint import Checkpoint
from model.training.state import TrainState
from model.training.trainer import StepMetrics
from tasks.home.contents.pretrained import TRUNK
from tasks.home.contents.story import BRANCH, tell_event
from tasks.home.records import StageRecord
from tasks.stage import StageRun
from tasks.training.curve import Curve
from tasks.training.meters import StageMeters
from tasks.training.start import TrainingStart, phase_beginning_at
from tasks.training.trained import CHECKPOINTS
from tasks.training.validator import Validator
from tasks.training.watching.groups import RowGroups

log = logging.getLogger("nightschool")


@dataclass(kw_only=True)
class TrainingRun:
    """What a training stage works on from its preparation to its end; state, curve and meters change with each step."""

    run: StageRun
    start: TrainingStart
    tokens: ShardedTokens
    validator: Validator
    phases: Sequence[Phase]
    num_steps: int
    state: TrainState
    curve: Curve
    meters: StageMeters
    branch_step: int | None = None
    """Steps before the decay, where the state is kept for a later night to go on from; None keeps none."""
    nights: int = 1
    """That the weights have been through, this one included."""
    earlier_positions: int = 0
    """Packed rows that the weights had read before this stage, counted each time."""
    pretrained: StageRecord | None = None
    """The stage whose model this one fine-tunes."""
    groups: RowGroups
    """Of which source and domain the slots of its rows are."""

    def record_step(self, step: StepMetrics) -> tuple[dict[str, float], dict[str, float]]:
        """Make what is due after a step, a change of experts or a validation, and log it.

        Returns what the step and a validation after it measured, its loss by source and domain included, which goes to
        the curve alone, and those of the validation, empty if there was none. Figures of the meters are for the curve:
        what watchers decide by is in a stage's key, and meters are not.
        Raises NightBusy if the home was taken over: folder and run of the stage are another night's then.
        """
        night = self.run.night
        night.journal.check(night.token)
        validation: dict[str, float] = {}
        if phase := phase_beginning_at(self.phases, step.number):
            validation = self._change_experts(phase)
        elif step.number % self.start.config.eval_every_steps == 0 or step.number == self.num_steps:
            validation = self.validator.metrics(self.state.model)
        measured = step.as_metrics() | validation
        labels_BT = self.tokens.rows(step.rows_B).labels
        by_group = self.groups.figures(self.groups.groups_of(step.rows_B, labels_BT.shape[1]), step.nats_BT, labels_BT)
        metrics = measured | self.meters.update(step)
        self.curve.add(step.number, metrics | by_group)
        self.run.tracker.metrics(metrics, step=step.number)
        return measured | by_group, validation

    def _change_experts(self, phase: Phase) -> dict[str, float]:
        """Begin a phase; returns the validation after it, with bits per byte before and after."""
        before = self.validator.metrics(self.state.model)["val/bpb"]
        self.start.change_experts(self.state, phase, self.validator)
        validation = self.validator.metrics(self.state.model)
        after = validation["val/bpb"]
        log.info("%-11s %s: validation %.4f → %.4f bits per byte", self.start.stage, phase, before, after)
        return validation | {"change/bpb_before": before, "change/bpb_after": after}

    def save_if_due(self, step: int, stopping: bool) -> None:
        """Save a checkpoint every `checkpoint_every_steps`, where experts changed, before a stop and at the end; the
        trunk where it branches, first: a stage that goes on after a kill at the checkpoint does not come by again."""
        if step == self.branch_step:
            checkpoint.save(self.state, self.run.folder / TRUNK, self.start.identity, keep=1)
            tell_event(self.run.logs, step, BRANCH)
        config, last = self.start.config, step == self.num_steps
        changed = phase_beginning_at(self.phases, step) is not None
        if step % config.checkpoint_every_steps == 0 or changed or stopping or last:
            keep = 1 if last else config.keep_checkpoints
            self.curve.sync()
            checkpoint.save(self.state, self.run.folder / CHECKPOINTS, self.start.identity, keep)

    def restore(self, saved: Checkpoint | None) -> None:
        """Go back to a checkpoint, or to the stage's start if it is None; curve and meters go back with the state."""
        del self.state  # there may not be memory for two
        self.state = replace(self.start, resume_from=saved).create_state(self.tokens)
        self.curve.truncate(self.state.step)
        self.meters = StageMeters(self.curve.points)
        self.run.tracker.back(self.state.step)


def checkpoints_of(folder: Path, identity: str) -> list[Checkpoint]:
    """The undamaged checkpoints in a stage's folder that belong to the training of an identity, oldest first.

    One that is damaged is passed over with a word: training goes on from the one before it.
    """
    whole = checkpoint.discover(folder / CHECKPOINTS)
    for path in sorted(set((folder / CHECKPOINTS).glob("step-*")) - {saved.path for saved in whole}):
        before = [saved.path.name for saved in whole if saved.path.name < path.name]
        log.warning(
            "checkpoint %s is damaged and left out; before it there is %s", path, before[-1] if before else "none"
        )
    return [saved for saved in whole if saved.identity == identity]
