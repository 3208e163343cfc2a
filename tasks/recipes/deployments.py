"""Recipes by their names: the deployments of prefect.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tasks.errors import NightStopped
from tasks.recipes.recipe import Recipe, recipe_from

DEPLOYMENTS = Path(__file__).resolve().parent.parent.parent / "prefect.yaml"
ENTRYPOINT = "flows.retrain_nightly:retrain_nightly"


def recipe_names(path: Path = DEPLOYMENTS) -> list[str]:
    """Names of the deployments that run a night."""
    return [d["name"] for d in read_deployments(path) if d["entrypoint"] == ENTRYPOINT]


def read_deployments(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"])


def load_recipe(name: str, path: Path = DEPLOYMENTS) -> Recipe:
    """The recipe of deployment `name`. Raises NightStopped if there is none."""
    for deployment in read_deployments(path):
        if deployment["name"] == name and deployment["entrypoint"] == ENTRYPOINT:
            return recipe_from(deployment["parameters"]["recipe"])
    raise NightStopped(f"no recipe {name!r}; prefect.yaml has {', '.join(recipe_names(path))}")
