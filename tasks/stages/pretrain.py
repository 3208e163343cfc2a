"""Packed text → a language model."""

from __future__ import annotations

from tasks.home.records import StageRecord
from tasks.stage import Outcome, StageRun, training_stage


@training_stage
def pretrain(run: StageRun, tokens: StageRecord) -> Outcome:
    """Train the model from scratch on the train side of the pretraining text."""
    from tasks.training.run import drain, finish, prepare  # torch takes seconds to import; a reused stage must not pay

    training = prepare(run, "pretrain", tokens, run.recipe.model, run.recipe.pretrain)
    drain(training)
    return finish(training)
