"""A language model and conversations → a chat model."""

from __future__ import annotations

from tasks.home.records import StageRecord
from tasks.stage import Outcome, StageRun, training_stage


@training_stage
def sft(run: StageRun, tokens: StageRecord, pretrained: StageRecord) -> Outcome:
    """Train the pretrained model on the assistant's turns of the chat rows, and on text if the recipe replays it."""
    from tasks.training.run import drain, finish, prepare  # see tasks/stages/pretrain.py

    training = prepare(run, "chat", tokens, run.recipe.model, run.recipe.sft, start_from=pretrained)
    drain(training)
    return finish(training)
