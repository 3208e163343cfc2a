"""Which registered version a person means, with its files on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.errors import NightBusy, NightStopped, did_you_mean
from tasks.home.journal import Journal
from tasks.relocation import relocate
from tasks.settings import Settings, sqlite_file
from tasks.tracking.mlflow_store import Store
from tasks.tracking.registry import ModelVersion, Registry
from tasks.tracking.versions import CHAMPION


@dataclass(frozen=True)
class UsableModel:
    """A registered version to chat with or to serve."""

    name: str
    """Of the registered model."""
    version: int
    is_champion: bool
    folder: Path
    """Hugging Face's and MLflow's at once; that of a version of an earlier release is Hugging Face's alone."""

    def __str__(self) -> str:
        return f"{self.name}, version {self.version}{', the champion' if self.is_champion else ''}"


def registry_in_use(settings: Settings, recipe: str | None) -> Registry:
    """The registered model of a recipe, once the registry has answered.

    recipe: may be None if one recipe alone has a registered model.
    Raises NightStopped if no night was there yet, StoreAway if the registry does not answer.
    """
    database = sqlite_file(settings.tracking_uri)
    if database and not database.exists():
        raise NightStopped(
            f"no model is registered in {settings.home}: no night was there yet; make one with: python -m flows RECIPE"
        )
    from tasks.night.by_hand import only_recipe  # Prefect, which it needs, looks for a home that is there

    relocate(settings)
    store = Store(settings.tracking_uri, settings.home)
    store.require()
    return store.registry(recipe or only_recipe(store))


def usable_model(recipe: str | None, version: int | None) -> UsableModel:
    """A recipe's champion, or a version of its model by number.

    recipe: may be None if one recipe alone has a registered model.
    Raises NightStopped if there is no such thing, StoreAway if the registry does not answer. Waits for no lease, so a
    night may run beside it.
    """
    settings = Settings.load()
    registry = registry_in_use(settings, recipe)
    champion = champion_number(registry, Journal(settings.home))
    found = registry.champion() if version is None else registry.version_with_files(version)
    if found is None:
        raise NightStopped(nothing_found(registry, version, champion))
    return usable(registry, found, champion)


def usable(registry: Registry, found: ModelVersion, champion: int | None) -> UsableModel:
    return UsableModel(registry.model, found.version, found.version == champion, found.path)


def champion_number(registry: Registry, journal: Journal) -> int | None:
    """The champion's number, after what an earlier release registered is taken over, unless a night runs."""
    from tasks.night.incumbent import take_over

    champion = registry.version_of(CHAMPION)
    if champion is None and registry.recipe not in registry.recipes():
        try:
            with journal.lease("by hand"):
                take_over(registry, journal)
        except NightBusy:
            return None
        champion = registry.version_of(CHAMPION)
    return champion


def nothing_found(registry: Registry, version: int | None, champion: int | None) -> str:
    recipes = registry.recipes()
    if registry.recipe not in recipes:
        return (
            f"recipe {registry.recipe!r:.80} has no registered model{did_you_mean(registry.recipe, recipes)}\n"
            f"  recipes with a registered model: {', '.join(recipes) or 'none'}"
        )
    if version is None:
        return (
            f"{registry.model} has no champion; name a version with --version, or make one the champion: "
            f"python -m flows promote {registry.recipe} VERSION"
        )
    return (
        f"there is no version {version} of {registry.model}; the champion is {champion or 'none'}, and the tracking "
        "UI lists all versions"
    )
