"""Promote a version by hand, or roll back to the one before."""

from __future__ import annotations

from prefect import flow

from tasks.night.by_hand import promote_version
from tasks.night.lineage.naming import promotion_run_name
from tasks.services.endings import ON_REFUSAL


@flow(name="promote-model", flow_run_name=promotion_run_name, on_failure=ON_REFUSAL)
def promote_model(recipe: str | None = None, version: int | None = None) -> str:
    """Make `version` the champion of `recipe`; without a version, roll back to the previous champion.

    The recipe may be left out if one recipe alone has a registered model. Returns what was done.
    """
    return promote_version(recipe, version)
