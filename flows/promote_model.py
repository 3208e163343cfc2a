"""Promote a version by hand, or roll back to the one before."""

from __future__ import annotations

from prefect import flow

from tasks.night.by_hand import promote_version
from tasks.services.endings import ON_FAILURE


@flow(name="promote-model", on_failure=ON_FAILURE)
def promote_model(version: int | None = None) -> str:
    """Make `version` the champion; without one, roll back to the previous champion. Returns what was done."""
    return promote_version(version)
