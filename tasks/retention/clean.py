"""A home is cleaned: what is worked out goes, in an order that leaves every state in between a whole home.

A stage folder goes by one rename into the home's trash, so that it is there or not; what is made from others goes
before them, and a night's note after its folders. What a kill leaves is found and finished by the next cleaning.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import NightBusy, NightStopped, without_password
from tasks.faults import disk_faults
from tasks.home.journal import Journal
from tasks.home.notes import night_notes
from tasks.pages.text import format_bytes, one_line, plural
from tasks.recipes.recipe import Recipe
from tasks.relocation import relocate
from tasks.retention.needed import HomeFolders, note_growth
from tasks.retention.plan import Plan, Tracked, disk_bytes, plan_for
from tasks.retention.tables import give_room_back, old_prefect_rows, remove_prefect_rows
from tasks.settings import Settings, prefect_database, sqlite_file
from tasks.tracking.mlflow_store import Store, outbox_of
from tasks.tracking.removal.runs import Remains

TRASH = "trash"
WHY_CHARACTERS = 500
log = logging.getLogger("nightschool")


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What a cleaning did."""

    plan: Plan
    freed_bytes: int
    """Of the disk, by what files took that have no other name."""
    rows: int
    """Of databases and the journal, without those that went with others."""

    def as_text(self) -> str:
        what = [(self.plan.folders, "folder"), (self.plan.runs, "run"), (self.plan.versions, "version")]
        told = ", ".join(plural(len(some), noun) for some, noun in what)
        return f"{self.plan.recipe}: {told} and {plural(self.rows, 'row')} gone, {format_bytes(self.freed_bytes)} freed"


def clean_after_night(home: Path, tracking_uri: str, recipe: Recipe, token: int) -> Cleaned | None:
    """Clean at the end of a night, which holds the lease by `token`. Nothing that goes wrong here ends a good night:
    it is told, and the next cleaning goes on with it."""
    if not recipe.retention.clean_each_night:
        return None
    try:
        return clean_home(home, tracking_uri, recipe, token)
    except NightBusy:
        raise
    except Exception as error:
        why = one_line(error, WHY_CHARACTERS) or type(error).__name__
        log.warning("%s could not be cleaned: %s; the next night tries again, or: python -m flows clean", home, why)
        return None


def clean_home(home: Path, tracking_uri: str, recipe: Recipe, token: int) -> Cleaned:
    """Delete what is worked out for a recipe. Call it while holding the lease by `token`.

    Raises StoreAway, with nothing deleted, if the registry does not say which models are in use, and NightBusy if the
    lease moved on.
    """
    journal = Journal(home)
    journal.check(token)
    freed = empty_trash(home)
    plan = planned(home, tracking_uri, recipe)
    freed += disk_bytes(plan.places, freed=True)
    with disk_faults(home, home):
        clean_disk(plan, token)
        rows = remove_tracked(home, tracking_uri, plan, lambda: journal.check(token))
        rows += drop_needless_lines(journal)
        more, room = tidy_databases(tracking_uri, recipe)
    cleaned = Cleaned(plan=plan, freed_bytes=freed + room, rows=rows + more)
    log.info("cleaned    %s", cleaned.as_text())
    return cleaned


def clean_disk(plan: Plan, token: int) -> None:
    """Delete folders and notes. Before, it is noted what grew from what, since a link in between may go."""
    home, journal = plan.home, Journal(plan.home)
    empty_trash(home)
    note_growth(journal, HomeFolders(home))
    for name in plan.folders:
        journal.check(token)
        throw_away(home, home / "data" / name)
    empty_trash(home)
    for path in plan.notes:
        path.unlink(missing_ok=True)
    note_growth(journal, HomeFolders(home))


def planned(home: Path, tracking_uri: str, recipe: Recipe) -> Plan:
    """What a cleaning would delete, by what the registry says now. Raises StoreAway."""
    return plan_for(home, recipe.name, recipe.retention, tracked_of(home, tracking_uri, recipe.name))


def tracked_of(home: Path, tracking_uri: str, recipe: str) -> dict[str, Tracked]:
    """The recipe's runs and versions, and the versions of every other recipe that is known here."""
    remains, registry = remains_of(home, tracking_uri), Store(tracking_uri, home).registry(recipe)
    if remains.not_taken_over(recipe):
        raise NightStopped(
            f"the registered models of {recipe} are those of an earlier release, which its next night takes over; "
            f"nothing was cleaned before that: python -m flows {recipe}"
        )
    names = {recipe, *registry.recipes(), *(note.recipe for note in night_notes(home))}
    found = {name: Tracked(versions=remains.versions(name)) for name in sorted(names)}
    return found | {recipe: Tracked(runs=remains.runs(recipe), versions=found[recipe].versions)}


def remains_of(home: Path, tracking_uri: str) -> Remains:
    return Remains(outbox_of(tracking_uri, home))


def throw_away(home: Path, place: Path) -> None:
    """Take something out of the home at once; it is deleted with the trash."""
    trash = home / TRASH
    trash.mkdir(exist_ok=True)
    number = sum(1 for _ in trash.iterdir())
    while (target := trash / f"{number}.{place.name}").exists():
        number += 1
    place.rename(target)


def empty_trash(home: Path) -> int:
    """Delete what was thrown away; returns the bytes that this gave back."""
    trash = home / TRASH
    if not trash.exists():
        return 0
    freed = disk_bytes([trash], freed=True)
    shutil.rmtree(trash)
    return freed


def remove_tracked(home: Path, tracking_uri: str, plan: Plan, check: Callable[[], None]) -> int:
    """Delete versions and runs, and rows that belong to none; returns the number of runs and of those rows."""
    remains = remains_of(home, tracking_uri)
    for version in plan.versions:
        check()
        remains.remove_version(plan.recipe, version)
    spool = remains.outbox.spool
    for run in plan.runs:
        check()
        remains.remove_run(run)
    if plan.runs:
        spool.forget({name for run in plan.runs for name in (run.id, run.asked_as)})
    if remains.keeps_rows and plan.runs:
        log.info(
            "%s marked as deleted at %s; their rows and files go when `mlflow gc` is run there",
            plural(len(plan.runs), "run"), without_password(tracking_uri),
        )  # fmt: skip
    return len(plan.runs) + remains.sweep_rows(plan.recipe)


def drop_needless_lines(journal: Journal) -> int:
    """Leave lines of the journal out that tell where a stage was published whose folder is gone."""
    there = {record.key for record in HomeFolders(journal.home).records.values()}
    return journal.drop_lines(lambda entry: entry.get("event") == "published" and entry.get("key") not in there)


def tidy_databases(tracking_uri: str, recipe: Recipe) -> tuple[int, int]:
    """Delete old rows of Prefect's, and give room back; returns rows and bytes. What is busy waits for another time.

    A server that the user chose keeps its own tables.
    """
    prefect, rows = prefect_file(), 0
    if prefect:
        try:
            rows = remove_prefect_rows(prefect, recipe.retention.prefect_days)
        except sqlite3.OperationalError as error:
            log.warning("%s keeps its old rows for now: %s", prefect, error)
    files = [path for path in (prefect, sqlite_file(tracking_uri)) if path and path.exists()]
    return rows, sum(map(give_room_back, files))


def prefect_file() -> Path | None:
    """Prefect's database if it is a file of SQLite that is there."""
    path = prefect_database()
    return path if path and path.exists() else None


def dry_run(home: Path, tracking_uri: str, recipe: Recipe) -> str:
    """What a cleaning would delete, what stays and why, for people. Raises StoreAway."""
    plan, prefect = planned(home, tracking_uri, recipe), prefect_file()
    old = sum(old_prefect_rows(prefect, recipe.retention.prefect_days).values()) if prefect else 0
    freed = format_bytes(disk_bytes(plan.places, freed=True))
    return f"{plan.as_text()}\n  {freed} of the disk would be free, {plural(old, 'row')} of Prefect's gone"


def clean_recipes(recipes: Sequence[Recipe], only_tell: bool) -> str:
    """Clean the home of the settings for some recipes, one after the other, or tell what would go."""
    settings = Settings.load()
    relocate(settings)
    home, uri = settings.home, settings.tracking_uri
    store, told = Store(uri, home), []
    store.require()
    if only_tell:
        return "\n".join(dry_run(home, uri, recipe) for recipe in recipes)
    with Journal(home).lease("clean") as token:
        store.deliver()
        for recipe in recipes:
            told.append(clean_home(home, uri, recipe, token).as_text())
    return "\n".join(told)


def recipes_of_home(home: Path) -> list[str]:
    """Names of the recipes that left a note or data in a home."""
    data = {path.stem for path in (home / "newest").glob("*.json")}
    return sorted(data | {note.recipe for note in night_notes(home)})
