"""The tracking run of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prefect.context import TaskRunContext

from model.files import write_text
from tasks.tracking.mlflow_store import Store


def open_stage_run(
    store: Store, note: Path, name: str, tags: Mapping[str, str], params: Mapping[str, str], parent_id: str
) -> str:
    """The id of the run that a stage was interrupted in, if `note` has it and the store knows it, or of a new one.

    note: file in the stage's folder of logs that keeps the id.
    name, tags, params: of a new run; the params are the settings that the stage works by.
    parent_id: id of the night's run.
    """
    if note.exists() and store.reopen(note.read_text()):
        return note.read_text()
    run_id = store.start_run(name, {"nightschool.kind": "stage", **tags, **prefect_tags()}, parent_id=parent_id)
    store.tracker(run_id).params(params)
    write_text(note, run_id)
    return run_id


def prefect_tags() -> dict[str, str]:
    """Which task run this is, if it is one."""
    run = context.task_run if (context := TaskRunContext.get()) else None
    return {"prefect.task_run_id": str(run.id), "prefect.flow_run_id": str(run.flow_run_id)} if run else {}
