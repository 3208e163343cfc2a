"""A recipe in a file of its own: `--recipe FILE`, and the home's `recipes/NAME.yaml`. Quick to import."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks.errors import NightStopped

SUFFIXES = (".yaml", ".yml")
FOLDER = "recipes"
"""Of a home: recipes that are known by name, and become deployments."""
BESIDE = ("description", "schedules")
"""What a file may say beside the recipe's own settings, as a deployment of prefect.yaml does."""
SCHEDULE_KEYS = {"cron", "timezone", "slug"}
ELSEWHERE = ("builtin:", "hub:")


@dataclass(frozen=True, kw_only=True)
class RecipeFile:
    """What a file says. Whether its settings are a valid recipe is another question."""

    path: Path
    name: str
    content: dict[str, Any]
    """The recipe's own settings; what was relative to the file's folder is absolute."""
    description: str = ""
    schedules: tuple[dict[str, str], ...] = ()


def is_file(recipe: str) -> bool:
    """Whether a recipe is given as a file, not by its name."""
    return recipe.endswith(SUFFIXES) or "/" in recipe


def recipe_name(recipe: str | None) -> str | None:
    """The name of a recipe that is given by its name or as a file."""
    return read_recipe_file(Path(recipe)).name if recipe and is_file(recipe) else recipe


def files_in(home: Path) -> list[Path]:
    """The files of a home's own recipes, by name."""
    return sorted(path for path in (home / FOLDER).glob("*") if path.name.endswith(SUFFIXES))


def read_recipe_file(path: Path) -> RecipeFile:
    """What the file says. Raises NightStopped if it cannot be read or is no recipe's."""
    path = path.absolute()
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NightStopped(f"the recipe {path} cannot be read: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise NightStopped(f"the recipe {path} is no YAML: {error}") from None
    if not isinstance(found, dict) or not isinstance(name := found.get("name"), str):
        raise NightStopped(
            f"{path} is no recipe: it must be a mapping with `name`, `sources` and other settings of a recipe, as "
            "`python -m flows demo --dry-run` prints them first"
        )
    content = {key: value for key, value in found.items() if key not in BESIDE}
    return RecipeFile(
        path=path, name=name, content=from_folder(content, path.parent), description=str(found.get("description", "")),
        schedules=schedules_of(found.get("schedules") or [], path),
    )  # fmt: skip


def schedules_of(given: Any, path: Path) -> tuple[dict[str, str], ...]:
    shape = f'{path}: schedules must be a list such as [{{ cron: "30 1 * * *", timezone: UTC }}]'
    for schedule in given if isinstance(given, list) else [None]:
        if not isinstance(schedule, dict) or "cron" not in schedule:
            raise NightStopped(f"{shape}, not {given!r:.200}")
        if wrong := {str(key) for key in schedule} - SCHEDULE_KEYS:
            raise NightStopped(f"{shape}; unknown: {', '.join(sorted(wrong)):.200}. `make arm` turns one on")
    return tuple({key: str(value) for key, value in schedule.items()} for schedule in given)


def from_folder(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The settings with relative locations, of sources, of the tokenizer's folder and of that of the harness's tasks,
    made those of the file's folder."""
    sources = content.get("sources")
    if isinstance(sources, list):
        content["sources"] = [
            source | {"location": absolute(source["location"], folder)}
            if isinstance(source, dict) and isinstance(source.get("location"), str)
            else source
            for source in sources
        ]
    for section, name in (("data", "tokenizer"), ("evaluate", "harness_folder")):
        of = content.get(section)
        if isinstance(of, dict) and isinstance(location := of.get(name), str):
            content[section] = of | {name: absolute(location, folder)}
    return content


def absolute(location: str, folder: Path) -> str:
    """A location that is relative to a folder; others, and an empty one, as they are."""
    if not location or location.startswith((*ELSEWHERE, "/", "~")) or "://" in location:
        return location
    start = glob.escape(str(folder)) if glob.has_magic(location) else str(folder)
    return str(Path(start, location))
