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
from tasks.night.incumbent import follow_other_hands
from tasks.night.lineage.naming import night_run_name
from tasks.night.lineage.start import with_start
from tasks.night.opening import open_night
from tasks.night.report import NightReport
from tasks.night.skipping import NightSkipped, SkippedNight, as_skipped_state, stale_night
from tasks.recipes.recipe import Recipe
from tasks.retention.clean import clean_after_night
from tasks.services.endings import ON_FAILURE
from tasks.stage import Night, declared
from tasks.stages.evaluate import evaluate


@flow(name="retrain-nightly", flow_run_name=night_run_name, persist_result=False, on_failure=ON_FAILURE)
def retrain_nightly(
    *, overrides: dict[str, Any] | None = None, again: bool = False, recipe: Recipe
) -> NightReport | SkippedNight:
    """Retrain, judge, register.

    Args:
        overrides: Single values to replace in the recipe, such as {"pretrain.optim.peak_lr": 0.001}.
        again: Do the night even if nothing is new since one that came to its end.
        recipe: Everything that decides what the night does; a deployment brings its own.
    """
    if stale := stale_night(recipe):
        return as_skipped_state(stale)
    try:
        with open_night(recipe.with_overrides(overrides or {}), original=recipe, again=again) as night:
            return as_final_state(do_night(night))
    except NightSkipped as nothing_new:
        return as_skipped_state(nothing_new.night)


def do_night(night: Night) -> NightReport:
    """Everything between the opening of a night and its end."""
    judge_waiting_models(night)
    follow_other_hands(night)
    prepared = prepare_data(night)
    night = with_start(night, prepared.tokens, prepared.data)
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
    clean_after_night(night.home, night.tracking_uri, night.recipe, night.token)
    return report
