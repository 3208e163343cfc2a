"""The night as a whole: its lease, its parent run, its summary."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from prefect import get_client
from prefect.context import FlowRunContext

from data.rows.piece import Piece
from model.files import write_json
from tasks.errors import NightBusy, PlainMessages
from tasks.faults import disk_faults, whatever_it_says
from tasks.home.code import code_version
from tasks.home.contents.validated import read_pieces
from tasks.home.digests import digest_of
from tasks.home.journal import KEY_CHARACTERS, Journal
from tasks.home.notes import NIGHT, add_to_note, note_path, notes_in, read_note
from tasks.home.stage_table import STAGES
from tasks.night.all_nights import note_end
from tasks.night.duty.alarms import sound_alarms
from tasks.night.ending import broken_off
from tasks.night.failure import BY_A_PERSON, explain, explain_before_start
from tasks.night.lineage.naming import MODE, Identity, day_of, differences, night_before, run_name, told_beside
from tasks.night.skipping import MADE_OF, NightSkipped, require_something_new
from tasks.pages.text import plural
from tasks.planning.disk import disk_needed
from tasks.recipes.recipe import Recipe, as_params
from tasks.relocation import relocate
from tasks.services.endings import cancel_subflows, note_run
from tasks.services.output import outlive_reader
from tasks.settings import Settings, make_home
from tasks.sources.resolve import PIECES, Resolved, resolve
from tasks.stage import Night
from tasks.tracking.mlflow_store import Store, source_tags

MAKING = tuple(
    entry.name
    for entry in STAGES
    if entry.of_night and (entry.trains or entry.name in ("validate", "deduplicate", "split", "tokens"))
)
"""Stages whose code decides what model comes out of a night; the others look at it."""
NOT_OF_NIGHT = ("retention", "alarms")
"""Fields of a recipe that change nothing of a night."""
CHANGED = "changed"
"""Before the name of a setting that differs from the recipe or from the night before: MLflow lists parameters by name,
so these come first."""
log = logging.getLogger("nightschool")


@contextmanager
def open_night(
    recipe: Recipe, kind: str = NIGHT, asked: object = None, original: Recipe | None = None, again: bool = False
) -> Iterator[Night]:
    """Hold the lease and the parent run of a night, and end the run as the night ended, with the reason.

    A night is named by the digest of recipe, raw bytes and code. Running the same night again goes on in the same
    parent run, so an interruption does not leave two halves to compare. Another `kind` is a trial on the recipe's data,
    and what is `asked` of it belongs to its name. `original` is the recipe before single values were replaced.

    Raises NightSkipped, before anything is tracked, where nothing is new since a night that came to its end, unless it
    is to be done `again`.
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
        with on_disk(), journal.lease(recipe.name) as token:
            note_run(settings.home)
            if orphans := store.close_orphans():
                log.info("%s of a night that died: closed", plural(orphans, "tracking run"))
            raw = resolve(recipe.sources, settings.home, known_pieces(journal, recipe), recipe.validate.settle_seconds)
            for label, reason in raw.set_aside:
                log.info("left out  %s: %s", label, reason)
            key, made_of, identity = identify(recipe, raw, kind, asked)
            if kind == NIGHT and not again:
                require_something_new(journal, store, recipe, key, made_of)
            special, marked = beside(original or recipe, identity, earlier_night(settings.home, recipe, key, kind))
            name = run_name(recipe.name, identity.day, "" if kind == NIGHT else kind, special)
            run_id, day, name = open_parent(settings.home, store, recipe, key, kind, identity, name, marked)
            night = Night(
                recipe, key, settings.home, settings.tracking_uri, run_id, token, raw, day=day,
                opened_at=time.monotonic(), name=name if kind == NIGHT else "",
            )  # fmt: skip
            add_to_note(note_path(settings.home, recipe.name, key, kind), {MADE_OF: made_of})
            link_flow_run(night, name)
            with ending_as_it_ended(night), on_disk():
                yield night
    except NightSkipped:
        raise
    except BaseException as error:
        if night is None:
            explain_before_start(recipe.name, error)
        if kind == NIGHT and not isinstance(error, NightBusy):
            with whatever_it_says("how the night ended"):
                outcome = broken_off(recipe.name, night, error, settings.home)
                note_end(journal, outcome)
                sound_alarms(journal, outcome, recipe.alarms, error=error)
        raise


def night_content(recipe: Recipe) -> dict[str, object]:
    """What of a recipe names a night: all but what is told of sources and done with nights that are over."""
    sources = [replace(source, licence="") for source in recipe.sources]
    return {**{name: value for name, value in vars(recipe).items() if name not in NOT_OF_NIGHT}, "sources": sources}


def params_of_night(recipe: Recipe) -> dict[str, str]:
    """The recipe as parameters of the night's run, without what changes nothing of a night."""
    return {name: value for name, value in as_params(recipe).items() if name.partition(".")[0] not in NOT_OF_NIGHT}


def identify(recipe: Recipe, raw: Resolved, kind: str, asked: object) -> tuple[str, str, Identity]:
    """A night's key, the digest of what its model is made of, and what the next night compares itself with."""
    pieces = [located.piece for located in raw.pieces]
    code = {entry.name: code_version(entry.module) for entry in STAGES if entry.of_night or kind != NIGHT}
    content = {"recipe": night_content(recipe), "pieces": pieces}
    key = digest_of({**content, "code": code, **({"kind": kind, "asked": asked} if asked else {})})
    made_of = digest_of({**content, "code": {name: code[name] for name in MAKING}})
    return key, made_of, Identity(params=params_of_night(recipe), data=digest_of(pieces), code=digest_of(code))


@contextmanager
def ending_as_it_ended(night: Night) -> Iterator[None]:
    """End the parent run as the night ended, and say why if it did not come to its end."""
    tracker = night.store.tracker(night.run_id)
    try:
        yield
        night.journal.check(night.token)
    except BaseException as error:
        if night.journal.read_token() != night.token:  # overtaken: the run is that of another night by now
            if not isinstance(error, BY_A_PERSON):
                night.journal.check(night.token)  # whose work on the same folders is what it stumbled over
            raise
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


@dataclass(frozen=True)
class RawData:
    """All that a night's recipe takes in, as a dataset of its run."""

    path: Path
    """The home's list of pieces."""
    digest: str


@dataclass(frozen=True)
class Marked:
    """What is special about a night."""

    replaced: Mapping[str, str]
    """The recipe's values of settings that were replaced."""
    params: Mapping[str, str]
    """Parameters that come before all others."""


def open_parent(
    home: Path, store: Store, recipe: Recipe, key: str, kind: str, identity: Identity, name: str, marked: Marked
) -> tuple[str, str, str]:
    """The night's parent run, the one it had before or a new one; the day on which it was opened first; its name."""
    note = note_path(home, recipe.name, key, kind)
    if note.exists():
        content = read_note(note)
        if store.reopen(str(content["run_id"])):
            return str(content["run_id"]), day_of(content), content.get("name", name)
        note.with_suffix(".md").unlink(missing_ok=True)  # the new run gets all that the lost one had been told
    context = FlowRunContext.get()
    tags = {
        "nightschool.kind": kind,
        "nightschool.recipe": recipe.name,
        "nightschool.key": key,
        **(source_tags(context.flow.fn.__module__) if context and context.flow else {}),
    }
    run_id = store.start_run(name, tags)
    tracker = store.tracker(run_id)
    tracker.params({**marked.params, **identity.params})
    tracker.dataset(RawData(home / PIECES, identity.data), recipe.name, "training")
    content = {"run_id": run_id, "key": key, "name": name, "identity": identity.as_note()}
    write_json(note, content | {"replaced": dict(marked.replaced)})
    return run_id, identity.day, name


def earlier_night(home: Path, recipe: Recipe, key: str, kind: str) -> Identity | None:
    """The newest other night of the same recipe and kind."""
    place = note_path(home, recipe.name, key, kind)
    named = place.stem.rpartition("@")[0]
    return night_before((note for note in notes_in(place.parent) if note.recipe == named), key)


def beside(original: Recipe, identity: Identity, before: Identity | None) -> tuple[list[str], Marked]:
    """What differs from the night before, in words for a name, and what is marked on the parent run: that, and
    settings that were replaced in the recipe."""
    of_recipe = params_of_night(original)
    replaced = {setting: of_recipe[setting] for setting in differences(identity.params, of_recipe)}
    if identity.params[MODE] == "ask" and len(replaced) > 1:
        replaced.pop(MODE, None)  # it follows from the others
    earlier = before.params if before else {}
    changed = {*replaced, *differences(identity.params, earlier)}
    params = {
        f"{CHANGED}.{setting}": f"{value} ({'; '.join(was)})"
        for setting, value in identity.params.items()
        if setting in changed and (was := [
            *([f"recipe: {replaced[setting]}"] if setting in replaced else []),
            *([f"night before: {earlier[setting]}"] if earlier.get(setting, value) != value else []),
        ])
    }  # fmt: skip
    return told_beside(identity, before), Marked(replaced, params)


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
