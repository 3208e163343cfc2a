"""The table of commands. A new command is one line here, and a module or a function with its arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from flows.commands import nights, questions, trials, use
from tasks.errors import NightStopped, did_you_mean
from tasks.recipes.recipe_files import FOLDER, is_file
from tasks.settings import Settings

PROGRAM = "python -m flows"
DESCRIPTION = """\
Run a recipe in this process, or one of the commands below. Recipes are those of prefect.yaml and of the home's folder
recipes/, by name; one in any other file is run by: python -m flows --recipe FILE [--set key.path=value] [--dry-run]
Each has a help page of its own: python -m flows RECIPE --help, python -m flows COMMAND --help."""
EXIT_CODES = """\
exit codes: 0 done; 1 a fault of the program; 2 stopped for a reason in data, recipe, arguments or disk;
3 training diverged; 4 another night holds the home; 130 interrupted, run the same again to go on"""


def no_arguments(parser: argparse.ArgumentParser) -> None:
    """For a command that takes none."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command: how it is named, what it takes and what it runs."""

    name: str
    help: str
    """One line, for the list of commands."""
    run: Callable[[argparse.Namespace], int]
    """Does the work and returns the exit code; imports what is large itself, or --help would wait for it."""
    add_arguments: Callable[[argparse.ArgumentParser], None] = no_arguments
    only_reads: bool = False
    """No home is made, there are no log lines, and after an interruption nothing to go on with."""


COMMANDS = (
    Command(
        name="promote", run=nights.promote, add_arguments=nights.add_version,
        help="make a registered version the champion of its recipe",
    ),
    Command(
        name="rollback", run=nights.rollback, add_arguments=nights.add_recipe_with_model,
        help="make the previous champion the champion again",
    ),
    Command(
        name="clean", run=nights.clean, add_arguments=nights.add_clean_arguments,
        help="delete what nights left behind and no model in use needs, as the recipe's `retention` says",
    ),
    Command(
        name="take-over", run=nights.take_over, only_reads=True,
        help="take the home from a night that was stopped or hangs, and end it; it publishes nothing any more",
    ),
    Command(
        name="chat", run=use.chat, add_arguments=use.add_chat_arguments, only_reads=True,
        help="talk with the champion of a recipe, or another version, in the terminal",
    ),
    Command(
        name="serve", run=use.serve, add_arguments=use.add_serve_arguments, only_reads=True,
        help="start a server on the champion of a recipe, or another version",
    ),
    Command(
        name="registry", run=use.registry, add_arguments=use.add_registry_arguments, only_reads=True,
        help="who promoted, refused or rolled back which version of a recipe's model, when and why",
    ),
    Command(
        name="why-row", run=questions.why_row, add_arguments=questions.add_why_row_arguments, only_reads=True,
        help="what became of a row of raw data, and which training stages read it",
    ),
    Command(
        name="who-ate", run=questions.who_ate, add_arguments=questions.add_who_ate_arguments, only_reads=True,
        help="which rows a model was trained on",
    ),
    Command(
        name="replay", run=questions.replay, add_arguments=questions.add_replay_arguments, only_reads=True,
        help="the batch of a step again: its rows and documents, and which of them cost most",
    ),
    Command(
        name="lineage", run=questions.lineage, add_arguments=questions.add_lineage_arguments, only_reads=True,
        help="which nights a model's weights went through",
    ),
    Command(
        name="quarantine", run=questions.quarantine, add_arguments=questions.add_quarantine_arguments,
        only_reads=True, help="which lines of raw data were not kept, and why",
    ),
    Command(
        name="nights", run=questions.nights, add_arguments=questions.add_nights_arguments, only_reads=True,
        help="how all nights of a recipe ended, as a table and as a page with bits per byte, data, disk and time",
    ),
    Command(
        name="find-lr", run=trials.find_lr, add_arguments=trials.add_find_lr_arguments,
        help="suggest a peak learning rate for pretraining, from a range test on the recipe's own tokens and model",
    ),
    Command(
        name="sweep", run=trials.sweep, add_arguments=trials.add_sweep_arguments,
        help="train combinations of a few settings on the same tokens and compare them; nothing is registered",
    ),
)  # fmt: skip
IN_A_FILE = Command(
    name="--recipe", help="run the recipe in this file", run=nights.run_recipe,
    add_arguments=nights.add_recipe_in_a_file,
)  # fmt: skip
BY_NAME = {command.name: command for command in COMMANDS}


def parse(words: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """The command that the words of a command line name, and its arguments.

    A word that is no command is a recipe's name. Recipes are read only then, so that no question waits for them.
    Raises NightStopped if there is neither; argparse exits with 2, and a usage line, for any other mistake.
    """
    if any(word.partition("=")[0] == IN_A_FILE.name for word in words) and words[0].startswith("-"):
        alone = argparse.ArgumentParser(prog=PROGRAM, description=sentence(IN_A_FILE.help))
        IN_A_FILE.add_arguments(alone)
        return IN_A_FILE, alone.parse_args(words)
    if words and words[0] in BY_NAME:
        known = {words[0]: BY_NAME[words[0]]}
    else:
        known = recipe_commands() | BY_NAME
        if words and not words[0].startswith("-") and words[0] not in known:
            raise NightStopped(unknown_word(words[0], list(known)))
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=DESCRIPTION, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = parser.add_subparsers(
        title="recipes and commands", dest="command", metavar="RECIPE|COMMAND", required=True, prog=PROGRAM
    )
    for command in known.values():
        text = command.help.replace("%", "%%")  # argparse fills in what follows a single one
        command.add_arguments(choices.add_parser(command.name, help=text, description=sentence(text)))
    arguments = parser.parse_args(words)
    return known[arguments.command], arguments


def recipe_commands() -> dict[str, Command]:
    """For each recipe, by name, the command that runs it. Raises NightStopped if one has a command's name."""
    from tasks.recipes.deployments import DEPLOYMENTS, home_descriptions, recipe_descriptions

    home = Settings.load().home
    known, own = recipe_descriptions(), home_descriptions(home)
    for place, names in ((DEPLOYMENTS.name, known), (home / FOLDER, own)):
        if shared := sorted(set(BY_NAME) & set(names)):
            raise NightStopped(
                f"{place} has a recipe {shared[0]!r}, which is the name of a command; give it another name"
            )
    descriptions = own | known
    run = Command(name="", help="", run=nights.run_recipe, add_arguments=nights.add_night_options)
    return {name: replace(run, name=name, help=f"run this recipe: {text}") for name, text in descriptions.items()}


def unknown_word(word: str, names: Sequence[str]) -> str:
    recipes = ", ".join(name for name in names if name not in BY_NAME)
    file = "; one in a file is run by --recipe FILE" if is_file(word) else ""
    return (
        f"no recipe or command {word!r:.80}{did_you_mean(word, names)}{file}\n"
        f"  recipes: {recipes}\n  commands: {', '.join(BY_NAME)}"
    )


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].removesuffix('.')}."
