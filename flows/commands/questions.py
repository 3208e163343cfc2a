"""Commands that answer a question from the home's files alone. None may wait for torch, Prefect or MLflow; `replay`
alone, which scores what it found, for torch."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from tasks.errors import NightStopped
from tasks.recipes.recipe_files import recipe_name
from tasks.settings import Settings

LAST_RECIPE = "name, or file, of the recipe that it is about; the one that ran last if left out"


def print_lines(lines: Iterable[str]) -> None:
    """Print lines as they come."""
    for line in lines:
        print(line)


def add_why_row_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "row", metavar="TEXT|NAME|FILE:LINE",
        help="the row's whole text, its name (32 hexadecimal digits), or the file and line it stands on",
    )  # fmt: skip
    parser.add_argument("--recipe", help=LAST_RECIPE)
    parser.add_argument("--all", action="store_true", help="list all training stages that read the row, not the newest")


def why_row(arguments: argparse.Namespace) -> int:
    """Print what became of a row."""
    from tasks.questions import answers

    home = Settings.load().home
    recipe = recipe_name(arguments.recipe)
    print_lines(answers.why_row(home, arguments.row, recipe, arguments.all))
    return 0


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN",
        help="MLflow run id of a night or a training stage (or its first 8 digits), a night's name, a registered "
        "version, or champion",
    )  # fmt: skip
    parser.add_argument("--recipe", help=f"whose version or champion: {LAST_RECIPE}")


def add_who_ate_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--all", action="store_true", help="print every row as jsonl, and nothing else")


def who_ate(arguments: argparse.Namespace) -> int:
    """Print what a model was trained on."""
    from tasks.questions import answers

    answer = answers.who_ate_rows if arguments.all else answers.who_ate
    print_lines(answer(Settings.load().home, arguments.run, recipe_name(arguments.recipe)))
    return 0


def add_replay_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--step", type=int, required=True, metavar="N", help="the optimizer step, from 1")
    parser.add_argument(
        "--stage", metavar="STAGE", help="pretrain or sft; the stage whose run it is, else pretrain, if left out"
    )
    parser.add_argument(
        "--top", type=num_rows, metavar="K", help="rows to show; 5 in the terminal and all on the page if left out"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the whole text of the rows, too")


def num_rows(text: str) -> int:
    """A number of rows of at least 1; argparse shows the message of the error."""
    return at_least_one(text, "rows")


def replay(arguments: argparse.Namespace) -> int:
    """Print the batch of a step again, with what each of its rows and documents costs."""
    from tasks.questions.replay import replay

    lines = replay(
        Settings.load().home, arguments.run, arguments.step, arguments.stage, recipe_name(arguments.recipe),
        arguments.top, arguments.html,
    )  # fmt: skip
    print_lines(lines)
    return 0


def add_lineage_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "version",
        nargs="?",
        default="champion",
        metavar="VERSION",
        help="a registered version; the champion if left out",
    )
    parser.add_argument("--recipe", help=f"whose version or champion: {LAST_RECIPE}")


def lineage(arguments: argparse.Namespace) -> int:
    """Print which nights a model's weights went through."""
    from tasks.questions.ancestry import lineage_lines

    print_lines(lineage_lines(Settings.load().home, arguments.version, recipe_name(arguments.recipe)))
    return 0


def add_nights_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE", help="whose nights; the one whose night ended last if left out"
    )


def nights(arguments: argparse.Namespace) -> int:
    """Print how the nights of a recipe ended, and write the page over all of them."""
    from tasks.questions import nights as all_nights

    print_lines(all_nights.nights(Settings.load().home, recipe_name(arguments.recipe)))
    return 0


def add_quarantine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", help=LAST_RECIPE)
    parser.add_argument("--rule", help="list the lines that broke this rule")
    parser.add_argument("--file", metavar="LABEL", help="list the lines of this file")
    parser.add_argument("--show", type=num_lines, metavar="N", help="lines to list, at least 1; 10 if left out")
    parser.add_argument("--recheck", action="store_true", help="check the lines again with today's rules and recipe")
    parser.add_argument(
        "--set", action="append", default=[], metavar="key.path=value",
        help="with --recheck: replace one value of the recipe",
    )  # fmt: skip


def num_lines(text: str) -> int:
    """A number of lines of at least 1; argparse shows the message of the error."""
    return at_least_one(text, "lines")


def at_least_one(text: str, what: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of {what} of at least 1, not {text!r:.40}")
    return int(text)


def quarantine(arguments: argparse.Namespace) -> int:
    """Print the lines that were not kept, or how many today's rules would keep."""
    home, recipe, rule, file = Settings.load().home, arguments.recipe, arguments.rule, arguments.file
    if arguments.set and not arguments.recheck:
        raise NightStopped("--set changes the rules of a recheck; add --recheck, or leave --set out")
    from tasks.questions import answers

    if arguments.recheck:
        from tasks.questions.recheck import recheck_quarantine  # today's rules need pandera

        print_lines(recheck_quarantine(home, recipe, rule, file, arguments.set))
    else:
        print_lines(answers.quarantine(home, recipe_name(recipe), rule, file, arguments.show))
    return 0
