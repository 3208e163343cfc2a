"""`python -m flows RECIPE` or `python -m flows COMMAND`; `flows/commands/table.py` lists the commands."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence

from flows.commands.table import PROGRAM, Command, parse
from tasks import settings
from tasks.errors import Interrupted
from tasks.faults import ending
from tasks.pages.text import SHOWN_BY_BAR
from tasks.services.output import forget_output_if_unread


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the words of the command line name, `sys.argv` if None are given.

    Returns the exit code: 0 done, 1 a fault of the program, 2 stopped for a reason in data, recipe, arguments or disk,
    3 diverged, 4 busy, 130 interrupted. argparse itself exits with 2 for arguments it does not know.
    """
    words = sys.argv[1:] if argv is None else argv
    can_go_on = False
    try:
        command, arguments = parse(words)
        if not command.only_reads:
            show_log_lines()
            if not getattr(arguments, "dry_run", False):  # which writes nothing
                can_go_on = True
                settings.prepare_process()
        return run_while_read(command, arguments)
    except Exception as error:
        message, code = ending(error, settings.home_or_default())
        print(f"\n{message}", file=sys.stderr)
        if isinstance(error, Interrupted):
            print(how_to_go_on(words), file=sys.stderr)
        return code
    except KeyboardInterrupt:
        if can_go_on:
            print(f"\nInterrupted; every finished stage is kept.\n{how_to_go_on(words)}", file=sys.stderr)
        return Interrupted.exit_code


def run_while_read(command: Command, arguments: argparse.Namespace) -> int:
    """Run a command; one whose output nobody reads any more, as `head` does after its lines, is done."""
    try:
        code = command.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        if not forget_output_if_unread():  # another pipe broke
            raise
        return 0
    return code


def how_to_go_on(words: Sequence[str]) -> str:
    return f"Run the same again to go on where it stopped: {typed(words)}"


def typed(words: Sequence[str]) -> str:
    """The command as it was typed, the interpreter included; `words` are those of the command line."""
    as_started = sys.orig_argv[-len(words) :] == list(words) if words else False
    return shlex.join(sys.orig_argv) if as_started else f"{PROGRAM} {shlex.join(words)}"


def show_log_lines() -> None:
    """Print our log lines to the terminal, each with its time alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    handler.addFilter(lambda record: not getattr(record, SHOWN_BY_BAR, False))
    log = logging.getLogger("nightschool")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


if __name__ == "__main__":
    sys.exit(main())
