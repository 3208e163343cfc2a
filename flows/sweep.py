"""A few settings of pretraining side by side."""

from __future__ import annotations

from prefect import flow

from flows.prepare_data import packed_data
from tasks.night.lineage.naming import night_run_name
from tasks.night.opening import open_night
from tasks.recipes.recipe import Recipe
from tasks.services.endings import ON_FAILURE
from tasks.trials.plan import Sweep
from tasks.trials.sweep import try_settings
from tasks.trials.sweep_report import SweepReport, conclude_sweep
from tasks.trials.trial import SWEEP


@flow(name="sweep", flow_run_name=night_run_name, persist_result=False, on_failure=ON_FAILURE)
def sweep_settings(recipe: Recipe, sweep: Sweep) -> SweepReport:
    """The data stages as far as the tokens, and short pretrainings of every setting."""
    with open_night(recipe, SWEEP, sweep) as night:
        *_, packed = packed_data(night)
        tried = list(try_settings(night, sweep, packed))
        return conclude_sweep(night, sweep, tried)
