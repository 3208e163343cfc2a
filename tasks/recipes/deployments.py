"""Recipes by their names: the deployments of prefect.yaml and the home's own files; and recipes in other files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tasks.errors import NightStopped, did_you_mean
from tasks.recipes.recipe_files import FOLDER, RecipeFile, files_in, is_file, read_recipe_file
from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks.recipes.recipe import Recipe

DEPLOYMENTS = Path(__file__).resolve().parent.parent.parent / "prefect.yaml"
ENTRYPOINT = "flows.retrain_nightly:retrain_nightly"


def read_deployments(path: Path) -> list[dict[str, Any]]:
    """All deployments of the file. Raises NightStopped if it is not YAML with a list of them."""
    try:
        deployments = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
        return [{"entrypoint": "", **deployment} for deployment in deployments if deployment["name"]]
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise NightStopped(f"{path} cannot be read: {error}") from None
    except (KeyError, TypeError):
        raise NightStopped(
            f"{path} has no list `deployments` of entries with a name; see the one in the repository"
        ) from None


def recipe_descriptions(path: Path = DEPLOYMENTS) -> dict[str, str]:
    """Descriptions of the deployments that run a night, by name, in the order of the file."""
    return {d["name"]: str(d.get("description", "")) for d in read_deployments(path) if d["entrypoint"] == ENTRYPOINT}


def home_descriptions(home: Path) -> dict[str, str]:
    """Descriptions of a home's own recipes, by name. A file that is wrong has its fault for one, and hides no other."""
    found = {}
    for path in files_in(home):
        try:
            file = read_recipe_file(path)
            found[path.stem] = file.description or f"{path} of the home"
        except NightStopped as stop:
            found[path.stem] = str(stop).splitlines()[0]
    return found


def recipe_names(path: Path = DEPLOYMENTS) -> list[str]:
    """Names of the deployments that run a night, in the order of the file."""
    return list(recipe_descriptions(path))


def load_recipe(recipe: str, path: Path = DEPLOYMENTS) -> Recipe:
    """The recipe of this name, of prefect.yaml or the home's folder `recipes`, or the one in this file.

    Raises NightStopped if there is none or it is not valid.
    """
    from tasks.recipes.recipe import recipe_from  # takes a second, which --help need not wait for

    if is_file(recipe):
        return load_recipe_file(Path(recipe))[1]
    for deployment in read_deployments(path):
        if deployment["name"] == recipe and deployment["entrypoint"] == ENTRYPOINT:
            return recipe_from((deployment.get("parameters") or {}).get("recipe", {}))
    home = Settings.load().home
    if own := next((file for file in files_in(home) if file.stem == recipe), None):
        return load_recipe_file(own)[1]
    names, others = recipe_names(path), [file.stem for file in files_in(home)]
    mine = f"; {home / FOLDER} has {', '.join(others)}" if others else ""
    raise NightStopped(
        f"no recipe {recipe!r:.80}; {path.name} has {', '.join(names)}{mine}{did_you_mean(recipe, [*names, *others])}"
    )


def load_recipe_file(path: Path) -> tuple[RecipeFile, Recipe]:
    """A file and its recipe.

    Raises NightStopped if it is not valid, or if its name is that of another recipe: nights, models and champions go
    by the name, and two recipes would take each other's.
    """
    from tasks.recipes.recipe import recipe_from

    file, own = read_recipe_file(path), Settings.load().home / FOLDER
    try:
        recipe = recipe_from(file.content)
    except NightStopped as stop:
        raise NightStopped(f"{file.path}: {stop}") from None
    if file.path.parent == own and file.path.stem != file.name:
        raise NightStopped(f"{file.path} holds the recipe {file.name!r:.80}; call the file {file.name:.80}.yaml")
    others = {DEPLOYMENTS: file.name} if file.name in recipe_names() else {}
    others |= {other: str(other) for other in files_in(own.parent) if other.stem == file.name and other != file.path}
    for place, other in others.items():
        known = load_recipe(other) if place == DEPLOYMENTS else recipe_from(read_recipe_file(place).content)
        if known != recipe:
            raise NightStopped(
                f"{file.path}: {place} has another recipe {file.name!r:.80}; give this one another name, as models and "
                "champions are called after it"
            )
    return file, recipe
