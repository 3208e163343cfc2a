"""What Prefect says of runs that end otherwise than well, and who is told.

Prefect calls a run Failed whatever its exception, and leaves those that were killed Running. Here the state of a run is
what happened to it, with one sentence for people.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

from model.files import write_json
from tasks.alive import Mark
from tasks.errors import Diverged, Interrupted, NightBusy, NightStopped, is_passing
from tasks.services.notices import Notice, tell
from tasks.services.processes import Service, read_services

BY_INTENT = (NightBusy, Interrupted)
"""Nothing failed: another night runs, or someone asked this one to stop."""
TOLD = "nightschool_told"
log = logging.getLogger("nightschool")


def error_of(state: State[Any]) -> BaseException | None:
    """What ended a run, where it is known in this process."""
    error = state.result(raise_on_failure=False)
    return error if isinstance(error, BaseException) else None


def may_help(_declared: Any, _run: Any, state: State[Any]) -> bool:
    """Whether Prefect tries a failed stage again: for faults that pass alone."""
    return is_passing(error_of(state))


def tell_failure(declared: Any, run: Any, state: State[Any]) -> None:
    """A Prefect hook, of stages and flows: tell a failure once.

    A stage's error ends the flow too. A notice that cannot be sent ends nothing.
    """
    error = error_of(state)
    if isinstance(error, BY_INTENT) or getattr(error, TOLD, False):
        return
    if error is not None:
        setattr(error, TOLD, True)
    reason = str(error) if error is not None and str(error) else state.message or "no reason was given"
    kind = "diverged" if isinstance(error, Diverged) else "stopped" if isinstance(error, NightStopped) else "failed"
    tell(Notice(kind=kind, recipe=recipe_of(run), title=f"{declared.name}: {state.name}", text=reason))


def recipe_of(run: Any) -> str:
    """The recipe of the night that a run belongs to, as far as this process knows; empty if it does not."""
    context = FlowRunContext.get()
    parameters = (context.parameters if context else None) or getattr(run, "parameters", None) or {}
    given = parameters.get("recipe")
    return str(given.get("name", "") if isinstance(given, Mapping) else getattr(given, "name", given) or "")


def end_by_intent(_flow: Any, run: Any, state: State[Any]) -> None:
    """A Prefect hook of flows: a run that another night refused, or that was asked to stop, is Cancelled."""
    error = error_of(state)
    if isinstance(error, BY_INTENT):
        cancel(run.id, str(error))


def end_refused(_flow: Any, run: Any, state: State[Any]) -> None:
    """A Prefect hook of flows that do one thing by hand: what cannot be done as asked is Cancelled, nothing failed."""
    error = error_of(state)
    if isinstance(error, NightStopped):
        cancel(run.id, str(error))


def cancel(run_id: UUID, reason: str) -> None:
    """Mark a flow run as cancelled, with those of its stages that did not complete."""
    with get_client(sync_client=True) as client:
        for stage in stages(client, run_id):
            if not (stage.state and stage.state.is_completed()):
                client.set_task_run_state(stage.id, Cancelled(message=reason), force=True)
        client.set_flow_run_state(run_id, Cancelled(message=reason), force=True)


ON_FAILURE: list[Any] = [end_by_intent, tell_failure]
"""Hooks of every flow of ours, but for those that do one thing by hand."""
ON_REFUSAL: list[Any] = [end_refused]


def note_run(home: Path) -> None:
    """Note the flow run of this process, and end runs whose process is gone, or whose worker is.

    Call it while holding the lease. The note stays: only a later process can know that Prefect was told of the end.
    """
    close_dead_runs(home)
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        run = context.flow_run
        content = {"name": run.name, **asdict(Mark.of()), "on_worker": bool(run.deployment_id)}
        write_json(notes(home) / f"{run.id}.json", content)
    services = {service.name: service for service in read_services(home)}
    if "prefect" in services and "worker" not in services:
        for name in close_runs_without_worker(home, f"{services['prefect'].url}/api"):
            log.info("marked as crashed, as its worker ended before it did: %s", name)


def notes(home: Path) -> Path:
    return home / "flow-runs"


def noted_processes(home: Path) -> Iterator[tuple[Path, Service, bool]]:
    """Notes of flow runs, each with its process and whether a worker started that."""
    for note in sorted(notes(home).glob("*.json")):
        content = json.loads(note.read_text(encoding="utf-8"))
        process = Service(content["name"], content["pid"], content["started"], boot=content.get("boot", ""))
        yield note, process, content.get("on_worker", False)


def close_dead_runs(home: Path) -> int:
    """Mark flow runs of this home as Crashed, with their stages and subflows, whose process ended without a word.

    Returns their number. Only noted runs are asked for, so none of another home or machine is touched.
    """
    closed = 0
    for note, service, _ in noted_processes(home):
        if service.process():
            continue
        with get_client(sync_client=True) as client:
            message = f"process {service.pid} ended without a word; the next night in its home found it so"
            closed += end_open_runs(client, UUID(note.stem), Crashed(message=message))
        note.unlink()
    if closed:
        log.info("marked as crashed, as their night died: flow runs, %d in all", closed)
    return closed


def close_runs_without_worker(home: Path, api: str) -> list[str]:
    """Mark runs of deployments as Crashed that began and have no process; call it while no worker runs.

    api: address of the home's Prefect server. Returns their names.
    """
    begun = FlowRunFilterState(
        type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    )
    alive = {note.stem for note, service, _ in noted_processes(home) if service.process()}
    with SyncPrefectClient(api) as client:
        lost = [
            run for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=begun))
            if run.deployment_id and str(run.id) not in alive
        ]  # fmt: skip
        for run in lost:
            message = "its worker ended before it did; start it again, and it goes on from what is finished"
            end_open_runs(client, run.id, Crashed(message=message))
    return [run.name for run in lost]


def cancel_subflows() -> None:
    """Mark the subflows of this flow run as cancelled that did not complete: they were stopped with it."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        with get_client(sync_client=True) as client:
            for run in subflows(client, context.flow_run.id):
                if not (run.state and run.state.is_completed()):
                    client.set_flow_run_state(run.id, Cancelled(message="stopped with its night"), force=True)


def end_open_runs(client: SyncPrefectClient, run_id: UUID, state: State[Any]) -> int:
    """Put a flow run, its subflows and all their stages into a state, those that have not ended.

    Returns the number of flow runs.
    """
    try:
        runs = [client.read_flow_run(run_id), *subflows(client, run_id)]
    except ObjectNotFound:  # it ran on another server, or was deleted there
        return 0
    for stage in (stage for run in runs for stage in stages(client, run.id)):
        if not (stage.state and stage.state.is_final()):
            client.set_task_run_state(stage.id, state, force=True)
    unfinished = [run for run in runs if not (run.state and run.state.is_final())]
    for run in unfinished:
        client.set_flow_run_state(run.id, state, force=True)
    return len(unfinished)


def subflows(client: SyncPrefectClient, run_id: UUID) -> list[Any]:
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run_id]))
    )


def stages(client: SyncPrefectClient, run_id: UUID) -> list[Any]:
    return client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))


def prefect_tags() -> dict[str, str]:
    """Which task run this is, if it is one."""
    run = context.task_run if (context := TaskRunContext.get()) else None
    return {"prefect.task_run_id": str(run.id), "prefect.flow_run_id": str(run.flow_run_id)} if run else {}
