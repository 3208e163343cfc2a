"""Promotion and rollback by a person."""

from __future__ import annotations

import logging

from tasks.errors import NightStopped
from tasks.faults import disk_faults
from tasks.home.journal import BY_HAND, Journal
from tasks.home.lines import now
from tasks.night.incumbent import take_over, what_became_of
from tasks.night.lineage.trunks import back_by_hand
from tasks.pages.text import plural
from tasks.relocation import relocate
from tasks.settings import Settings, who_acts
from tasks.tracking.mlflow_store import Store
from tasks.tracking.moves.ledger import Overtaken
from tasks.tracking.registry import Registry
from tasks.tracking.versions import CHAMPION, OLD_MODEL, PREVIOUS

VERSIONS_TOLD = 10
"""In a message."""
log = logging.getLogger("nightschool")


def promote_version(recipe: str | None, version: int | None) -> str:
    """Move the champion alias of a recipe by hand, to `version` or back to the previous champion; says what was done.

    recipe: may be None if one recipe alone has a registered model.
    The version that was champion is marked as rolled back if it is newer than the new champion.
    """
    settings = Settings.load()
    relocate(settings)
    journal, store = Journal(settings.home), Store(settings.tracking_uri, settings.home)
    store.require()
    with disk_faults(settings.home, settings.home), journal.lease("by hand") as token, journal.holding(token):
        registry = store.registry(recipe or only_recipe(store))
        take_over(registry, journal)
        before = registry.version_of(CHAMPION)
        back = version is None
        wanted = previous_champion(registry, journal) if version is None else version
        if not registry.has_version(wanted):
            raise NightStopped(
                f"there is no version {wanted} of {registry.model}; {versions_told(registry)}\n"
                f"  recipes with a registered model: {', '.join(registry.recipes()) or 'none'}"
            )
        reason = f"by hand, {now()}"
        withdrawn = before if before and before != wanted and (back or wanted < before) else None
        if withdrawn:
            registry.mark_rolled_back(withdrawn, f"{reason}, to version {wanted}")
        instead = f", in place of version {before}" if before and before != wanted else ""
        try:
            registry.make_champion(
                wanted, f"{reason}{instead}", how="rollback" if withdrawn else "by hand", instead_of=before
            )
        except Overtaken as overtaken:
            if withdrawn:
                registry.clear_rolled_back(withdrawn)
            journal.note(
                event="overtaken", recipe=registry.recipe, version=wanted, who=who_acts(), reason=str(overtaken)
            )
            raise
        registry.clear_rolled_back(wanted)
        said = f"champion is version {wanted}, before it was {before or 'none'} ({registry.model})"
        if withdrawn:
            said += f"; version {withdrawn} is marked as rolled back, no night promotes it again"
            if went_back := back_by_hand(journal, registry.recipe, wanted):
                said += f"; {went_back}"
        journal.note(
            event=BY_HAND, recipe=registry.recipe, version=wanted, before=before, rolled_back=withdrawn,
            who=who_acts(),
        )  # fmt: skip
        log.info(said)
        return said


def only_recipe(store: Store) -> str:
    """The one recipe that has a registered model. Raises NightStopped if there is none, or more."""
    recipes = store.registry("").recipes()
    if len(recipes) != 1:
        raise NightStopped(
            f"name the recipe: {', '.join(recipes)} have a registered model"
            if recipes
            else "no recipe has a registered model yet, so there is nothing to promote; if an earlier release "
            f"registered some (in the model {OLD_MODEL}), name their recipe"
        )
    return recipes[0]


def previous_champion(registry: Registry, journal: Journal) -> int:
    """The version to go back to. Raises NightStopped if there is none, or if a person went back from it."""
    champion, version = registry.version_of(CHAMPION), registry.version_of(PREVIOUS)
    moved = registry.moves.last_move()
    if moved and champion and moved.to < champion and registry.has_version(moved.to):
        version = moved.to  # a person made a newer one champion in MLflow, which leaves `previous` as it was
    if version is None:
        reason = f"there is no previous champion of {registry.model} to go back to"
    elif version == champion:
        reason = f"version {version} is {CHAMPION} and {PREVIOUS} at once, as somebody went back in the registry itself"
    elif withdrawn := registry.rolled_back_version(version):
        reason = f"the champion before, version {version}, was itself rolled back {withdrawn.note}"
    else:
        return version
    told = f"{reason}; {champion_told(registry, journal)}"
    if not registry.versions():
        others = ", ".join(registry.recipes()) or "none"
        raise NightStopped(f"{told}; it has no version. Recipes with a registered model: {others}")
    raise NightStopped(
        f"{told}. Name the version you want: python -m flows promote {registry.recipe} VERSION; "
        f"{versions_told(registry)}"
    )


def champion_told(registry: Registry, journal: Journal) -> str:
    """Who is champion now, and if nobody is, what became of the last one."""
    if champion := registry.version_of(CHAMPION):
        return f"the champion now is version {champion}"
    lost = journal.last_promoted(registry.recipe)
    return "there is no champion now" + (f": {what_became_of(registry, lost)}" if lost else "")


def versions_told(registry: Registry) -> str:
    """The newest versions of a recipe's model by number."""
    versions = registry.versions()
    newest = ", ".join(map(str, versions[:VERSIONS_TOLD]))
    if len(versions) > VERSIONS_TOLD:
        return f"the newest of its {plural(len(versions), 'version')} are {newest}"
    return f"its versions are {newest}" if versions else "it has no version"
