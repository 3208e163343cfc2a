"""The night as a whole: its lease, its parent run, its summary."""

from __future__ import annotations

import glob
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from prefect import get_client
from prefect.context import FlowRunContext

from data.rows.piece import Piece
from model.files import write_json
from tasks.errors import PlainMessages
from tasks.faults import disk_faults, whatever_it_says
from tasks.home.code import code_version
from tasks.home.contents.validated import read_pieces
from tasks.home.digests import digest_of, plain
from tasks.home.journal import KEY_CHARACTERS, Journal
from tasks.home.stage_table import STAGES
from tasks.night.failure import BY_A_PERSON, explain, explain_before_start
from tasks.night.naming import Identity, day_of, differences, night_before, run_name, told_beside
from tasks.pages.text import plural
from tasks.recipes.recipe import Recipe, as_params
from tasks.relocation import relocate
from tasks.services.endings import cancel_subflows, noted_run
from tasks.services.output import outlive_reader
from tasks.settings import Settings, make_home
from tasks.sources.resolve import resolve
from tasks.stage import Night, disk_needed
from tasks.tracking.mlflow_store import Store

NIGHT = "night"
CHANGED = "changed"
"""Before the name of a setting that was replaced for a night: MLflow lists parameters by name, so these come first."""
log = logging.getLogger("nightschool")


@contextmanager
def open_night(
    recipe: Recipe, kind: str = NIGHT, asked: object = None, original: Recipe | None = None
) -> Iterator[Night]:
    """Hold the lease and the parent run of a night, and end the run as the night ended, with the reason.

    A night is named by the digest of recipe, raw bytes and code. Running the same night again goes on in the same
    parent run, so an interruption does not leave two halves to compare. Another `kind` is a trial on the recipe's data,
    and what is `asked` of it belongs to its name. `original` is the recipe before single values were replaced.
    """
    prepare_logging()
    outlive_reader()
    make_home()
    settings = Settings.load()
    relocate(settings)
    journal, store = Journal(settings.home), Store(settings.tracking_uri, settings.home)
    night = None
    try:
        store.check()
        on_disk = partial(disk_faults, settings.home, settings.home, partial(disk_needed, recipe))
        with on_disk(), journal.lease(recipe.name) as token, noted_run(settings.home):
            if orphans := store.close_orphans():
                log.info("%s of a night that died were closed", plural(orphans, "tracking run"))
            raw = resolve(recipe.sources, settings.home, known_pieces(journal, recipe), recipe.validate.settle_seconds)
            for label, reason in raw.set_aside:
                log.info("left out  %s: %s", label, reason)
            pieces = [located.piece for located in raw.pieces]
            code = {entry.name: code_version(entry.module) for entry in STAGES if entry.of_night or kind != NIGHT}
            trial = {"kind": kind, "asked": asked} if asked else {}
            key = digest_of({"recipe": plain(recipe), "pieces": pieces, "code": code, **trial})
            identity = Identity(params=as_params(recipe), data=digest_of(pieces), code=digest_of(code))
            name = name_beside(settings.home, recipe, key, kind, identity)
            run_id, day = open_parent(settings.home, store, recipe, key, kind, identity, name, original or recipe)
            night = Night(recipe, key, settings.home, settings.tracking_uri, run_id, token, raw, day=day)
            link_flow_run(night, name)
            with ending_as_it_ended(night), on_disk():
                yield night
    except BaseException as error:
        if night is None:
            explain_before_start(recipe.name, error)
        raise


@contextmanager
def ending_as_it_ended(night: Night) -> Iterator[None]:
    """End the parent run as the night ended, and say why if it did not come to its end."""
    tracker = night.store.tracker(night.run_id)
    try:
        yield
    except BaseException as error:
        status = "KILLED" if isinstance(error, BY_A_PERSON) else "FAILED"
        if status == "KILLED":
            cancel_subflows()
        with whatever_it_says("why the night ended"):
            explain(night.store, night.run_id, night.recipe.name, night.day, error)
        with whatever_it_says("that the night ended"):
            tracker.close(status)
        raise
    tracker.close("FINISHED")


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


def open_parent(
    home: Path, store: Store, recipe: Recipe, key: str, kind: str, identity: Identity, name: str, original: Recipe
) -> tuple[str, str]:
    """The night's parent run, the one it had before or a new one, and the day on which it was opened first."""
    note = note_path(home, recipe.name, key, kind)
    if note.exists():
        content = json.loads(note.read_text(encoding="utf-8"))
        if store.reopen(str(content["run_id"])):
            return str(content["run_id"]), day_of(content)
        note.with_suffix(".md").unlink(missing_ok=True)  # the new run gets all that the lost one had been told
    tags = {
        "nightschool.kind": kind,
        "nightschool.recipe": recipe.name,
        "nightschool.key": key,
    }
    run_id = store.start_run(name, tags)
    before = as_params(original)
    replaced = {setting: before[setting] for setting in differences(identity.params, before)}
    marked = {f"{CHANGED}.{key}": f"{identity.params[key]} (recipe: {was})" for key, was in replaced.items()}
    store.tracker(run_id).params({**marked, **identity.params})
    write_json(note, {"run_id": run_id, "key": key, "identity": identity.as_note(), "replaced": replaced})
    return run_id, identity.day


def name_beside(home: Path, recipe: Recipe, key: str, kind: str, identity: Identity) -> str:
    """What a night of today is called: what differs from the newest one of the same recipe and kind is in it."""
    pattern = note_path(home, glob.escape(recipe.name), "*", kind)
    special = told_beside(identity, night_before(pattern.parent.glob(pattern.name), key))
    return run_name(recipe.name, identity.day, "" if kind == NIGHT else kind, special)


def link_flow_run(night: Night, name: str) -> None:
    """Tags both ways: the tracking run names the flow run, the flow run names the tracking run.

    The flow run gets the name, too: its parameters alone cannot tell what differs from the night before.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    flow_run = context.flow_run
    night.store.tracker(night.run_id).tags({"prefect.flow_run_id": str(flow_run.id), "prefect.flow_run_name": name})
    tags = {*flow_run.tags, f"mlflow.run_id:{night.run_id}", f"night:{night.key[:KEY_CHARACTERS]}"}
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=name, tags=sorted(tags))
