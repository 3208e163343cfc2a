"""`python -m flows RECIPE`: run a recipe in this process, say what it would cost, promote or roll back by hand."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import yaml

from tasks import settings
from tasks.errors import Interrupted, NightStopped
from tasks.recipe import Recipe, load_recipe, parse_settings, plain_recipe, recipe_names

log = logging.getLogger("nightschool")
PROMOTE, ROLLBACK = "promote", "rollback"


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flows", description=__doc__)
    parser.add_argument(
        "what", metavar="RECIPE", help=f"{', '.join(recipe_names())}; or {PROMOTE} VERSION; or {ROLLBACK}"
    )
    parser.add_argument("version", nargs="?", type=int, help=f"with {PROMOTE}: the version that becomes champion")
    parser.add_argument("--set", action="append", default=[], metavar="key.path=value", help="replace one value")
    parser.add_argument("--dry-run", action="store_true", help="print the recipe and what it will cost, and stop")
    chosen = parser.parse_args(argv)
    if (chosen.what == PROMOTE) != (chosen.version is not None):
        parser.error(f"a version goes with {PROMOTE}, and only there: python -m flows {PROMOTE} 3")
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 stopped for a reason in data or recipe, 3 diverged, 4 busy, 130 interrupted."""
    chosen = arguments(argv)
    print_our_messages()
    settings.prepare_process()
    try:
        if chosen.what in (PROMOTE, ROLLBACK):
            from flows.promote_model import promote_model  # Prefect must be imported after the settings above

            print(promote_model(chosen.version))
            return 0
        recipe = load_recipe(chosen.what).with_overrides(parse_settings(chosen.set))
        if chosen.dry_run:
            dry_run(recipe)
            return 0
        return run_night(recipe)
    except NightStopped as stop:
        print(f"\n{stop}", file=sys.stderr)
        if isinstance(stop, Interrupted):
            print(how_to_go_on(argv), file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print(f"\nInterrupted; every finished stage is kept.\n{how_to_go_on(argv)}", file=sys.stderr)
        return Interrupted.exit_code


def run_night(recipe: Recipe) -> int:
    """Run the flow in this process, on the server of `make up` if one is there, else on an embedded one."""
    from tasks.services import embedded_prefect, running_url, wait_for_api

    url = running_url("prefect")
    server = None if url or settings.chosen_prefect_api() else embedded_prefect()
    settings.use_prefect_api(f"{server.url if server else url}/api")
    from flows.retrain_nightly import retrain_nightly  # Prefect reads its settings when it is imported

    if server:
        wait_for_api(server)
    report = retrain_nightly(recipe)
    print(f"\n{report.as_text()}")
    return 0


def dry_run(recipe: Recipe) -> None:
    """Print the resolved recipe and its cost."""
    from tasks.estimate import estimate  # torch takes seconds to import

    print(yaml.safe_dump(plain_recipe(recipe), sort_keys=False, allow_unicode=True, default_flow_style=None, width=110))
    print(estimate(recipe))


def how_to_go_on(argv: Sequence[str] | None) -> str:
    words = " ".join(sys.argv[1:] if argv is None else argv)
    return f"Run the same again to go on where it stopped: make run, or python -m flows {words}"


def print_our_messages() -> None:
    """Our log lines go to the terminal as they are."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    log.addHandler(handler)
    log.propagate = False


if __name__ == "__main__":
    sys.exit(main())
