"""Packed text → a language model."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.home.records import StageRecord, TokensRef
from tasks.stage import TRAINING_CODE, Night, Outcome, StageRun, run_stage


@task(name="pretrain", cache_policy=NO_CACHE, persist_result=False)
def pretrain(night: Night, tokens: TokensRef) -> StageRecord:
    """Train the model from scratch on the train side of the pretraining text."""
    recipe = night.recipe

    def work(run: StageRun) -> Outcome:
        from tasks.training.run import run_training  # torch takes seconds to import; a reused stage must not pay

        run.tracker.dataset(tokens, "pretrain", "training")
        return run_training(run, run.stage, "pretrain", tokens, recipe.model, recipe.pretrain)

    return run_stage(
        night,
        "pretrain",
        inputs={"tokens": tokens},
        config={"model": recipe.model, "train": recipe.pretrain},
        code=(*TRAINING_CODE, __name__),
        work=work,
        resumable=True,
        system_metrics=True,
    )
