"""A peak learning rate for a recipe, from its own tokens and model."""

from __future__ import annotations

from prefect import flow

from flows.prepare_data import packed_data
from tasks.night.lineage.naming import night_run_name
from tasks.night.opening import open_night
from tasks.recipes.recipe import Recipe
from tasks.services.endings import ON_FAILURE
from tasks.trials.find_lr import LrReport, conclude_search, find_lr
from tasks.trials.plan import RangeTest
from tasks.trials.trial import LR_SEARCH


@flow(name="find-lr", flow_run_name=night_run_name, persist_result=False, on_failure=ON_FAILURE)
def search_lr(recipe: Recipe, test: RangeTest) -> LrReport:
    """The data stages as far as the tokens, and a range test on these."""
    with open_night(recipe, LR_SEARCH, test) as night:
        *_, packed = packed_data(night)
        found = find_lr(night, packed, test)
        return conclude_search(night, found)
