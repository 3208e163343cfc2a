"""Recipes by their names: the deployments of prefect.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tasks.errors import NightStopped, did_you_mean

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


def recipe_names(path: Path = DEPLOYMENTS) -> list[str]:
    """Names of the deployments that run a night, in the order of the file."""
    return list(recipe_descriptions(path))


def load_recipe(name: str, path: Path = DEPLOYMENTS) -> Recipe:
    """The recipe of deployment `name`. Raises NightStopped if there is none or it is not valid."""
    from tasks.recipes.recipe import recipe_from  # takes a second, which --help need not wait for

    for deployment in read_deployments(path):
        if deployment["name"] == name and deployment["entrypoint"] == ENTRYPOINT:
            return recipe_from((deployment.get("parameters") or {}).get("recipe", {}))
    names = recipe_names(path)
    raise NightStopped(f"no recipe {name!r:.80}; {path.name} has {', '.join(names)}{did_you_mean(name, names)}")
