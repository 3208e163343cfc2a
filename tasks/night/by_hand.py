"""Promotion and rollback by a person."""

from __future__ import annotations

from tasks.errors import NightStopped, StoreAway, without_password
from tasks.faults import disk_faults
from tasks.home.journal import Journal, now
from tasks.night.incumbent import take_over
from tasks.night.opening import log
from tasks.relocation import relocate
from tasks.settings import Settings
from tasks.tracking.mlflow_store import Store
from tasks.tracking.registry import Registry
from tasks.tracking.versions import CHAMPION, OLD_MODEL, PREVIOUS


def promote_version(recipe: str | None, version: int | None) -> str:
    """Move the champion alias of a recipe by hand, to `version` or back to the previous champion; says what was done.

    recipe: may be None if one recipe alone has a registered model.
    The version that was champion is marked as rolled back if it is newer than the new champion.
    """
    settings = Settings.load()
    relocate(settings)
    journal, store = Journal(settings.home), Store(settings.tracking_uri, settings.home)
    if not store.check():
        raise StoreAway(
            f"the model registry at {without_password(settings.tracking_uri)} did not answer; try again later"
        )
    with disk_faults(settings.home, settings.home), journal.lease("by hand"):
        registry = store.registry(recipe or only_recipe(store))
        take_over(registry, journal)
        before = registry.version_of(CHAMPION)
        back = version is None
        wanted = previous_champion(registry) if version is None else version
        if not registry.has_version(wanted):
            raise NightStopped(
                f"there is no version {wanted} of {registry.model}; the tracking UI lists the versions\n"
                f"  recipes with a registered model: {', '.join(registry.recipes()) or 'none'}"
            )
        reason = f"by hand, {now()}"
        withdrawn = before if before and before != wanted and (back or wanted < before) else None
        if withdrawn:
            registry.mark_rolled_back(withdrawn, f"{reason}, to version {wanted}")
        registry.clear_rolled_back(wanted)
        registry.make_champion(wanted, reason)
        said = f"champion is version {wanted}, before it was {before or 'none'} ({registry.model})"
        if withdrawn:
            said += f"; version {withdrawn} is marked as rolled back, no night promotes it again"
        journal.note(
            event="promoted by hand", recipe=registry.recipe, version=wanted, before=before, rolled_back=withdrawn
        )
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


def previous_champion(registry: Registry) -> int:
    """The version to go back to. Raises NightStopped if there is none, or if a person went back from it."""
    version = registry.version_of(PREVIOUS)
    if version is None:
        raise NightStopped(f"there is no previous champion of {registry.model} to go back to; name a version")
    if withdrawn := registry.rolled_back_version(version):
        raise NightStopped(
            f"the champion before, version {version}, was itself rolled back {withdrawn.note}; name the version you "
            f"want: python -m flows promote {registry.recipe} VERSION"
        )
    return version
