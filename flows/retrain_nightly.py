"""The whole chain: the scheduled entry point."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prefect import flow

from flows.judge_model import judge_model, judge_waiting_models
from flows.prepare_data import prepare_data
from flows.train_model import train_model
from flows.train_twin import train_twin
from tasks.night.candidate import Candidate
from tasks.night.conclusion import conclude
from tasks.night.opening import open_night
from tasks.night.report import NightReport
from tasks.recipes.recipe import Recipe
from tasks.stages.evaluate import evaluate


@flow(name="retrain-nightly", persist_result=False)
def retrain_nightly(recipe: Recipe, overrides: dict[str, Any] | None = None) -> NightReport:
    """Retrain, judge, register. `overrides` replaces single values: `{"pretrain.optim.peak_lr": 0.001}`."""
    with open_night(recipe.with_overrides(overrides or {})) as night:
        judge_waiting_models(night)
        prepared = prepare_data(night)
        trained = train_model(night, prepared.tokens)
        scored = evaluate(night, trained[-1], prepared.rows, prepared.tokens, label="challenger")
        candidate = Candidate(night, [*prepared.records, *trained, scored])
        registered = judge_model(candidate)
        twin = train_twin(night, prepared) if night.recipe.twin else None
        return conclude(replace(candidate, twin=twin), registered)
