"""Packed text → a language model."""

from __future__ import annotations

from tasks.home.records import StageRecord
from tasks.stage import Outcome, StageRun, training_stage


@training_stage
def pretrain(run: StageRun, tokens: StageRecord) -> Outcome:
    """Train the model from scratch on the train side of the pretraining text."""
    from tasks.training.run import run_training  # torch takes seconds to import; a reused stage must not pay

    return run_training(run, run.stage, "pretrain", tokens, run.recipe.model, run.recipe.pretrain)
