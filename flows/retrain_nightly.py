"""The whole chain: the scheduled entry point."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.prepare_data import prepare_data
from flows.train_model import train_model
from flows.train_twin import train_twin
from tasks.night.conclusion import conclude
from tasks.night.opening import open_night
from tasks.night.report import NightReport
from tasks.recipes.recipe import Recipe
from tasks.stages.evaluate import evaluate
from tasks.stages.register import register


@flow(name="retrain-nightly", persist_result=False)
def retrain_nightly(recipe: Recipe, overrides: dict[str, Any] | None = None) -> NightReport:
    """Retrain, judge, register. `overrides` replaces single values: `{"pretrain.optim.peak_lr": 0.001}`."""
    with open_night(recipe.with_overrides(overrides or {})) as night:
        prepared = prepare_data(night)
        trained = train_model(night, prepared.tokens)
        model = trained[-1]
        scored = evaluate(night, model, prepared.rows, prepared.tokens, label="challenger")
        champion, champion_scored = night.champion(), None
        if champion and champion.digest != model.digest:
            champion_scored = evaluate(night, champion, prepared.rows, prepared.tokens, label="champion")
        registered = register(night, model, prepared.tokens, scored, champion_scored, prepared.data)
        twin = train_twin(night, prepared) if night.recipe.twin else None
        return conclude(night, [*prepared.records, *trained, scored, registered], twin)
