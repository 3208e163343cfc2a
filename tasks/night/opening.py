"""The night as a whole: its lease, its parent run, its summary."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal

from data.rows.piece import Piece
from model.files import write_json
from tasks.errors import Interrupted, PlainMessages
from tasks.home.code import code_version
from tasks.home.contents.validated import read_pieces
from tasks.home.digests import digest_of, plain
from tasks.home.journal import KEY_CHARACTERS, Journal
from tasks.home.stage_table import STAGES
from tasks.recipes.recipe import Recipe, as_params
from tasks.services.endings import cancel_subflows, noted_run
from tasks.services.output import outlive_reader
from tasks.settings import Settings, make_home
from tasks.sources.resolve import resolve
from tasks.stage import Night
from tasks.tracking.mlflow_store import Store

NIGHT = "night"
log = logging.getLogger("nightschool")


@contextmanager
def open_night(recipe: Recipe, kind: str = NIGHT, asked: object = None) -> Iterator[Night]:
    """Hold the lease and the parent run of a night, and end the run as the night ended.

    A night is named by the digest of recipe, raw bytes and code. Running the same night again goes on in the same
    parent run, so an interruption does not leave two halves to compare. Another `kind` is a trial on the recipe's data,
    and what is `asked` of it belongs to its name.
    """
    prepare_logging()
    outlive_reader()
    make_home()
    settings = Settings.load()
    journal, store = Journal(settings.home), Store(settings.tracking_uri, settings.home)
    with journal.lease(recipe.name) as token, noted_run(settings.home):
        if orphans := store.close_orphans(settings.home):
            log.info("%d tracking runs of a night that died were closed", orphans)
        raw = resolve(recipe.sources, settings.home, known_pieces(journal, recipe), recipe.validate.settle_seconds)
        for label, reason in raw.set_aside:
            log.info("left out  %s: %s", label, reason)
        key = digest_of(
            {
                "recipe": plain(recipe),
                "pieces": [located.piece for located in raw.pieces],
                "code": {entry.name: code_version(entry.module) for entry in STAGES},
                **({"kind": kind, "asked": asked} if asked else {}),
            }
        )
        run_id = open_parent(settings.home, store, recipe, key, kind)
        night = Night(recipe, key, settings.home, settings.tracking_uri, run_id, token, raw)
        link_flow_run(night)
        status = "FAILED"
        try:
            yield night
            status = "FINISHED"
        except (Interrupted, KeyboardInterrupt, TerminationSignal):
            status = "KILLED"
            cancel_subflows()
            raise
        finally:
            store.tracker(run_id).close(status)


def known_pieces(journal: Journal, recipe: Recipe) -> list[Piece]:
    """Pieces that the recipe's last validation knew: of a file that has grown since, only the tail is new."""
    newest = journal.newest("validate", recipe.name)
    return [scanned.piece for scanned in read_pieces(newest.path)] if newest else []


def prepare_logging() -> None:
    """Let our messages through to Prefect, and keep it from adding a traceback to what already is a clear message."""
    log.setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logger = logging.getLogger(name)
        if not any(isinstance(f, PlainMessages) for f in logger.filters):
            logger.addFilter(PlainMessages())


def note_path(home: Path, recipe: str, key: str, kind: str = NIGHT) -> Path:
    """Where a night notes its run and outcome. Trials have a folder of their own: they are no nights to ask about."""
    name = f"{recipe}@{key[:KEY_CHARACTERS]}.json"
    return home / "nights" / name if kind == NIGHT else home / "trials" / f"{kind}-{name}"


def open_parent(home: Path, store: Store, recipe: Recipe, key: str, kind: str) -> str:
    """The night's parent run: the one it had before, or a new one."""
    note = note_path(home, recipe.name, key, kind)
    if note.exists():
        run_id = str(json.loads(note.read_text())["run_id"])
        if store.reopen(run_id):
            return run_id
    tags = {
        "nightschool.kind": kind,
        "nightschool.recipe": recipe.name,
        "nightschool.home": str(home),
        "nightschool.key": key,
    }
    run_id = store.start_run(f"{'' if kind == NIGHT else kind + '-'}{recipe.name}-{key[:KEY_CHARACTERS]}", tags)
    store.tracker(run_id).params(as_params(recipe))
    write_json(note, {"run_id": run_id, "key": key})
    return run_id


def link_flow_run(night: Night) -> None:
    """Tags both ways: the tracking run names the flow run, the flow run names the tracking run."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    flow_run = context.flow_run
    night.store.tracker(night.run_id).tags(
        {"prefect.flow_run_id": str(flow_run.id), "prefect.flow_run_name": flow_run.name}
    )
    tags = {*flow_run.tags, f"mlflow.run_id:{night.run_id}", f"night:{night.key[:KEY_CHARACTERS]}"}
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=sorted(tags))
