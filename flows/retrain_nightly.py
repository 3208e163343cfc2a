"""The whole chain: the scheduled entry point."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.prepare_data import prepare_data
from flows.train_model import train_model
from flows.train_twin import train_twin
from tasks.home.records import CheckpointRef, EvaluationRef
from tasks.night.conclusion import conclude
from tasks.night.opening import open_night
from tasks.night.report import NightReport
from tasks.recipes.recipe import Recipe
from tasks.stage import champion
from tasks.stages.evaluate import evaluate
from tasks.stages.register import register


@flow(name="retrain-nightly", persist_result=False)
def retrain_nightly(recipe: Recipe, overrides: dict[str, Any] | None = None) -> NightReport:
    """Retrain, judge, register. `overrides` replaces single values: `{"pretrain.optim.peak_lr": 0.001}`."""
    with open_night(recipe.with_overrides(overrides or {})) as night:
        prepared = prepare_data(night)
        trained = train_model(night, prepared.tokens)
        scored = evaluate(night, trained.model, prepared.rows, prepared.tokens, label="challenger")
        incumbent, incumbent_scored = champion(night), None
        if incumbent and incumbent.digest != trained.model.digest:
            ref = CheckpointRef(incumbent.folder, incumbent.digest)
            rescored = evaluate(night, ref, prepared.rows, prepared.tokens, label="champion")
            incumbent_scored = EvaluationRef(rescored.path, rescored.digest)
        registered = register(
            night,
            trained.model,
            prepared.tokens,
            EvaluationRef(scored.path, scored.digest),
            incumbent_scored,
            prepared.data,
        )
        twin = train_twin(night, prepared) if night.recipe.twin else None
        return conclude(night, [*prepared.records, *trained.records, scored, registered], twin)
