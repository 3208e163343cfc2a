"""Nights that the machine slept through are one: a scheduled run that a newer one has overtaken does nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from prefect import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext

from tasks.pages.text import plural

log = logging.getLogger("nightschool")


def why_stale(at: datetime | None = None) -> str:
    """Why the scheduled run that calls this has nothing to do: a newer run of its schedule is due. Empty if none is.

    A run that a person ordered is never stale. A Prefect that does not answer makes none stale: the night, which asks
    what is new, is the better judge then, and says so.

    at: the time at which others are due, now by default.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or not run.deployment_id or not run.auto_scheduled or run.expected_start_time is None:
        return ""
    at = at or datetime.now(UTC)
    due = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[run.deployment_id]),
        expected_start_time=FlowRunFilterExpectedStartTime(after_=run.expected_start_time, before_=at),
    )
    try:
        with get_client(sync_client=True) as client:
            others = client.read_flow_runs(flow_run_filter=due, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200)
    except Exception as error:  # of its client, of any kind
        log.warning("whether a newer run of this schedule is due is not known (%s); this one goes on", error)
        return ""
    return overtaken_by(run, others, at)


def overtaken_by(run: Any, others: Iterable[Any], at: datetime) -> str:
    """Why a scheduled run is overtaken by others of its deployment that are due at a time, whatever became of them;
    empty if it is not.

    Two for the same time, as two servers or a changed schedule leave them, are one as well: the one whose id is larger.
    """
    mine = (run.expected_start_time, str(run.id))
    newer = [
        other
        for other in others
        if other.auto_scheduled and other.id != run.id and other.expected_start_time is not None
        and mine < (other.expected_start_time, str(other.id)) and other.expected_start_time <= at
    ]  # fmt: skip
    if not newer:
        return ""
    newest = max(newer, key=lambda other: (other.expected_start_time, str(other.id)))
    return (
        f"this night was due at {told(run.expected_start_time)}, and {plural(len(newer), 'newer one')} of its schedule "
        f"since, the last at {told(newest.expected_start_time)}: that one ({newest.name}) stands for all"
    )


def told(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
