"""A language model and conversations → a chat model."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.home.records import CheckpointRef, StageRecord, TokensRef
from tasks.stage import TRAINING_CODE, Night, Outcome, StageRun, run_stage


@task(name="sft", cache_policy=NO_CACHE, persist_result=False)
def sft(night: Night, tokens: TokensRef, pretrained: CheckpointRef) -> StageRecord:
    """Train the pretrained model on the assistant's turns of the chat rows."""
    recipe = night.recipe

    def work(run: StageRun) -> Outcome:
        from tasks.training.run import run_training  # see tasks/pretrain.py

        run.tracker.dataset(tokens, "chat", "training")
        return run_training(run, run.stage, "chat", tokens, recipe.model, recipe.sft, start_from=pretrained)

    return run_stage(
        night,
        "sft",
        inputs={"tokens": tokens, "pretrained": pretrained},
        config={"model": recipe.model, "train": recipe.sft},
        code=(*TRAINING_CODE, __name__),
        work=work,
        resumable=True,
        system_metrics=True,
    )
