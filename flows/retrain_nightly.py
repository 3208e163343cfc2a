"""The whole chain: the scheduled entry point."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prefect import flow

from flows.judge_model import judge_model, judge_waiting_models
from flows.prepare_data import prepare_data
from flows.train_twin import train_twin
from tasks.home.records import StageRecord
from tasks.home.stage_table import TRAINING_STAGES
from tasks.night.candidate import Candidate
from tasks.night.conclusion import as_final_state, conclude
from tasks.night.naming import night_run_name
from tasks.night.opening import open_night
from tasks.night.report import NightReport
from tasks.recipes.recipe import Recipe
from tasks.services.endings import ON_FAILURE
from tasks.stage import declared
from tasks.stages.evaluate import evaluate


@flow(name="retrain-nightly", flow_run_name=night_run_name, persist_result=False, on_failure=ON_FAILURE)
def retrain_nightly(*, overrides: dict[str, Any] | None = None, recipe: Recipe) -> NightReport:
    """Retrain, judge, register.

    Args:
        overrides: Single values to replace in the recipe, such as {"pretrain.optim.peak_lr": 0.001}.
        recipe: Everything that decides what the night does; a deployment brings its own.
    """
    with open_night(recipe.with_overrides(overrides or {}), original=recipe) as night:
        judge_waiting_models(night)
        prepared = prepare_data(night)
        trained: dict[str, StageRecord] = {}
        for entry in TRAINING_STAGES:
            weights = [trained[entry.starts_from]] if entry.starts_from else []
            trained[entry.name] = declared(entry)(night, prepared.tokens, *weights)
        *_, model = trained.values()
        scored = evaluate(night, model, prepared.rows, prepared.tokens, label="challenger")
        candidate = Candidate(night, [*prepared.records, *trained.values(), scored])
        registered = judge_model(candidate)
        twin = train_twin(night, prepared) if night.recipe.twin else None
        report = conclude(replace(candidate, twin=twin), registered)
    return as_final_state(report)
