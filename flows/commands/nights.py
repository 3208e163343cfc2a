"""Commands that run a recipe or move the champion alias by hand."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import NightStopped
from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks.recipes.recipe import Recipe

NUMBER_DIGITS = 9
"""Of a version; databases hold no more than ten."""


def add_recipe_file(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """A recipe that is in a file."""
    parser.add_argument(
        "--recipe", required=required, metavar="FILE", dest="file", type=recipe_file,
        help="a YAML file with one recipe; its relative locations start at the file's folder",
    )  # fmt: skip


def recipe_file(text: str) -> str:
    """A file as `load_recipe` knows one, whatever its name ends with."""
    return str(Path(os.path.expanduser(text)).absolute())  # noqa: PTH111 - Path's raises where there is no such user


def add_recipe_in_a_file(parser: argparse.ArgumentParser) -> None:
    """What the command without a name takes."""
    add_recipe_file(parser, required=True)
    add_night_options(parser)


def add_night_options(parser: argparse.ArgumentParser) -> None:
    """What the command that runs a night takes."""
    add_recipe_options(parser)
    parser.add_argument("--again", action="store_true", help="do the night even if nothing is new since the last one")


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """What every command takes that works on a recipe."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="key.path=value",
        help="replace one value of the recipe, such as pretrain.optim.peak_lr=0.001; again for another value",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print what it will cost, and stop")


def resolved_recipe(name: str | None, file: str | None, pairs: list[str]) -> Recipe:
    """The recipe of this name or in this file with the values of `--set` (`key.path=value`) in place."""
    if not (given := name or file) or (name and file):
        raise NightStopped("give a recipe: its name, or a file with --recipe FILE; not both")
    from tasks.recipes.deployments import load_recipe
    from tasks.recipes.overrides import parse_settings

    return load_recipe(given).with_overrides(parse_settings(pairs))


def run_recipe(arguments: argparse.Namespace) -> int:
    """Run the night in this process, on the Prefect server of `make up` if it runs, else on an embedded one."""
    from tasks.recipes.deployments import load_recipe
    from tasks.recipes.overrides import parse_settings

    original, overrides = (
        load_recipe(getattr(arguments, "file", None) or arguments.command),
        parse_settings(arguments.set),
    )
    recipe = original.with_overrides(overrides)  # refused before a server starts
    if arguments.dry_run:
        print("Loading; then a few steps of each training stage are measured.", file=sys.stderr, flush=True)
        print_recipe_and_cost(recipe, arguments.again)
        return 0
    from tasks.services.embedded import reaching_prefect

    with reaching_prefect():
        from flows.retrain_nightly import retrain_nightly
    print(f"\n{retrain_nightly(recipe=original, overrides=overrides, again=arguments.again).as_text()}")
    return 0


def print_recipe_and_cost(recipe: Recipe, again: bool) -> None:
    """Raises NightStopped, after all is printed, if a source has nothing."""
    import yaml

    from tasks.home.notes import night_notes
    from tasks.night.lineage.beginning import expected
    from tasks.planning.plan import plan_text  # torch takes seconds to import
    from tasks.recipes.recipe import plain_recipe
    from tasks.sources.presence import look_at_sources

    print(yaml.safe_dump(plain_recipe(recipe), sort_keys=False, allow_unicode=True, default_flow_style=None, width=110))
    home = Settings.load().home
    looked = list(look_at_sources(recipe.sources, home))
    for source, said, _ in looked:
        print(f"source {source.name}: {said}")
    print(flush=True)
    print(plan_text(recipe, expected(home, recipe)))
    if not again and any(note.has_ended for note in night_notes(home, recipe.name)):
        print(
            "\nIf no row is new, and recipe and code are those of a night that has ended, this one ends as Skipped "
            "within seconds; --again does it all the same."
        )
    if gone := [source.name for source, _, is_gone in looked if is_gone]:
        raise NightStopped(f"the night would stop: there is nothing of source {', '.join(gone)}")


def add_recipe_with_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE",
        help="whose model it is; may be left out if one recipe alone has a registered model",
    )  # fmt: skip


def add_version(parser: argparse.ArgumentParser) -> None:
    add_recipe_with_model(parser)
    parser.add_argument("version", metavar="VERSION", help="number of the version in the MLflow registry")


def promote(arguments: argparse.Namespace) -> int:
    """Make a version the champion. Raises NightStopped if its number is missing, or no number."""
    recipe, version = arguments.recipe, arguments.version
    if not (version.isascii() and version.isdecimal() and 0 < int(version[: NUMBER_DIGITS + 1]) < 10**NUMBER_DIGITS):
        missing = "the number of the version is missing" if recipe is None else f"{version!r:.80} is no version number"
        name = recipe or version
        raise NightStopped(
            f"{missing}: python -m flows promote {name:.80} VERSION; python -m flows registry {name:.80} lists what "
            "was registered, and so does MLflow under Models"
        )
    from flows.promote_model import promote_model  # Prefect reads its settings when it is imported

    print(promote_model(recipe, int(version)))
    return 0


def rollback(arguments: argparse.Namespace) -> int:
    """Make the previous champion the champion again."""
    from flows.promote_model import promote_model

    print(promote_model(arguments.recipe))
    return 0


def add_clean_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE", help="one recipe's; those of all in the home if left out"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would go and what stays, with why, and stop")


def clean(arguments: argparse.Namespace) -> int:
    """Delete what recipes' `retention` says, or print what would go."""
    from tasks.recipes.deployments import load_recipe
    from tasks.recipes.recipe_files import is_file
    from tasks.retention.clean import clean_recipes, recipes_of_home

    names = [arguments.recipe] if arguments.recipe else recipes_of_home(Settings.load().home)
    recipes = []
    for name in names:
        try:
            recipes.append(load_recipe(name))
        except NightStopped as stop:
            if arguments.recipe or is_file(name):
                raise
            print(f"{name} is left as it is: {stop}", file=sys.stderr)
    print(clean_recipes(recipes, arguments.dry_run))
    return 0


def take_over(_: argparse.Namespace) -> int:
    """Take the home from a night that hangs."""
    from tasks.night.duty.overtaking import take_home_over

    print(take_home_over())
    return 0
