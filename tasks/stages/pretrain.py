"""Packed text → a language model."""

from __future__ import annotations

from tasks.home.records import StageRecord
from tasks.stage import Outcome, StageRun, training_stage


@training_stage
def pretrain(run: StageRun, tokens: StageRecord) -> Outcome:
    """Train the model on the train side of the pretraining text, from scratch or on from an earlier night."""
    from tasks.training.run import drain, finish, prepare  # torch takes seconds to import; a reused stage must not pay

    training = prepare(run, "pretrain", tokens, run.recipe.model, run.recipe.pretrain, trunk=run.night.start)
    drain(training)
    return finish(training)
