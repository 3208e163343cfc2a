"""`python -m flows RECIPE`: run a recipe in this process, say what it would cost, promote or roll back by hand.

Three commands answer questions about what was done: `why-row`, `who-ate` and `quarantine`. Two try settings on a
recipe's own data: `find-lr` and `sweep`. Each has its own --help.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.trials import TRIALS, trial_arguments, try_settings
from tasks import settings
from tasks.errors import Interrupted, NightStopped

if TYPE_CHECKING:
    from tasks.recipes.recipe import Recipe


log = logging.getLogger("nightschool")
PROMOTE, ROLLBACK = "promote", "rollback"
WHY_ROW, WHO_ATE, QUARANTINE = "why-row", "who-ate", "quarantine"
QUESTIONS = {
    WHY_ROW: "What became of a row: found by its text, its name (32 hexadecimal digits) or FILE:LINE.",
    WHO_ATE: "What a model was trained on: RUN is an MLflow run id of a night or of a training stage (or its first 8 "
    "digits), a registered version, or `champion`.",
    QUARANTINE: "Lines that were not kept: by rule and file, or the first ones of a rule or file.",
}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    from tasks.recipes.deployments import recipe_names

    parser = argparse.ArgumentParser(
        prog="python -m flows", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        metavar="RECIPE",
        help=f"{', '.join(recipe_names())}; or {PROMOTE} VERSION; or {ROLLBACK}; or {', '.join([*QUESTIONS, *TRIALS])}",
    )
    parser.add_argument("version", nargs="?", type=int, help=f"with {PROMOTE}: the version that becomes champion")
    parser.add_argument("--set", action="append", default=[], metavar="key.path=value", help="replace one value")
    parser.add_argument("--dry-run", action="store_true", help="print the recipe and what it will cost, and stop")
    chosen = parser.parse_args(argv)
    if (chosen.what == PROMOTE) != (chosen.version is not None):
        parser.error(f"a version goes with {PROMOTE}, and only there: python -m flows {PROMOTE} 3")
    return chosen


def question(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a question."""
    what = argv[0]
    parser = argparse.ArgumentParser(prog=f"python -m flows {what}", description=QUESTIONS[what])
    if what == WHO_ATE:
        parser.add_argument("run", metavar="RUN")
        parser.add_argument("--all", action="store_true", help="every row as jsonl, and nothing else")
        return parser.parse_args(argv[1:])
    parser.add_argument("--recipe", help="of this recipe; without it, of the one that ran last")
    if what == WHY_ROW:
        parser.add_argument("row", metavar="TEXT|NAME|FILE:LINE")
        parser.add_argument("--all", action="store_true", help="tell all training stages, not the last ones alone")
        return parser.parse_args(argv[1:])
    parser.add_argument("--rule", help="list the lines that broke a rule")
    parser.add_argument("--file", metavar="LABEL", help="list the lines of a file")
    parser.add_argument("--show", type=int, metavar="N", help="how many lines to list; 10 without it")
    parser.add_argument("--recheck", action="store_true", help="apply today's rules and recipe to the lines again")
    parser.add_argument("--set", action="append", default=[], metavar="key.path=value", help="with --recheck")
    chosen = parser.parse_args(argv[1:])
    if chosen.show is not None and chosen.show < 1:
        parser.error(f"--show takes a number of lines from 1 on, not {chosen.show}")
    return chosen


def answer(argv: Sequence[str]) -> int:
    """Answer a question; returns the exit code."""
    chosen, home = question(argv), settings.Settings.load().home
    from tasks.questions import answers

    if argv[0] == WHY_ROW:
        answers.say(answers.why_row(home, chosen.row, chosen.recipe, chosen.all))
    elif argv[0] == WHO_ATE:
        tell = answers.who_ate_rows if chosen.all else answers.who_ate
        answers.say(tell(home, chosen.run))
    elif chosen.recheck:
        from tasks.questions.recheck import recheck_quarantine  # today's rules bring pandera with them

        answers.say(recheck_quarantine(home, chosen.recipe, chosen.rule, chosen.file, chosen.set))
    else:
        answers.say(answers.quarantine(home, chosen.recipe, chosen.rule, chosen.file, chosen.show))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 stopped for a reason in data or recipe, 3 diverged, 4 busy, 130 interrupted."""
    words = sys.argv[1:] if argv is None else argv
    try:
        if words and words[0] in QUESTIONS:
            return answer(words)
        return run_trial(words) if words and words[0] in TRIALS else run(words)
    except NightStopped as stop:
        print(f"\n{stop}", file=sys.stderr)
        if isinstance(stop, Interrupted):
            print(how_to_go_on(words), file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        if not (words and words[0] in QUESTIONS):
            print(f"\nInterrupted; every finished stage is kept.\n{how_to_go_on(words)}", file=sys.stderr)
        return Interrupted.exit_code


def run(argv: Sequence[str]) -> int:
    """Run a recipe, or promote or roll back; returns the exit code."""
    chosen = arguments(argv)
    print_our_messages()
    settings.prepare_process()
    if chosen.what in (PROMOTE, ROLLBACK):
        from flows.promote_model import promote_model  # Prefect must be imported after the settings above

        print(promote_model(chosen.version))
        return 0
    from tasks.recipes.deployments import load_recipe
    from tasks.recipes.overrides import parse_settings

    recipe = load_recipe(chosen.what).with_overrides(parse_settings(chosen.set))
    if chosen.dry_run:
        dry_run(recipe)
        return 0
    return run_night(recipe)


def run_trial(argv: Sequence[str]) -> int:
    """Run a trial on a recipe's data; returns the exit code."""
    chosen = trial_arguments(argv)
    print_our_messages()
    settings.prepare_process()
    from tasks.recipes.deployments import load_recipe
    from tasks.recipes.overrides import parse_settings

    recipe = load_recipe(chosen.recipe).with_overrides(parse_settings(chosen.set))
    return try_settings(argv[0], recipe, chosen)


def run_night(recipe: Recipe) -> int:
    """Run the flow in this process, on the server of `make up` if one is there, else on an embedded one."""
    from tasks.services.embedded import reaching_prefect

    with reaching_prefect():
        from flows.retrain_nightly import retrain_nightly
    report = retrain_nightly(recipe)
    print(f"\n{report.as_text()}")
    return 0


def dry_run(recipe: Recipe) -> None:
    """Print the resolved recipe and its cost."""
    import yaml

    from tasks.planning.plan import plan_text  # torch takes seconds to import
    from tasks.recipes.recipe import plain_recipe

    print(yaml.safe_dump(plain_recipe(recipe), sort_keys=False, allow_unicode=True, default_flow_style=None, width=110))
    print(plan_text(recipe))


def how_to_go_on(words: Sequence[str]) -> str:
    make = "" if words and words[0] in TRIALS else "make run, or "
    return f"Run the same again to go on where it stopped: {make}python -m flows {' '.join(words)}"


def print_our_messages() -> None:
    """Our log lines go to the terminal as they are."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    log.addHandler(handler)
    log.propagate = False


if __name__ == "__main__":
    sys.exit(main())
