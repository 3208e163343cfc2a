"""A night in a process of its own, by the clock of the year: `python -m benchmarks.year.apart RECIPE.json TIME`."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

import time_machine

from flows.__main__ import show_log_lines
from tasks.errors import NightStopped
from tasks.recipes.recipe import recipe_from
from tasks.services.embedded import reaching_prefect


def main() -> int:
    recipe, at = recipe_from(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), sys.argv[2]
    with reaching_prefect():
        from flows.retrain_nightly import retrain_nightly
    show_log_lines()
    try:
        with time_machine.travel(datetime.fromisoformat(at)):
            retrain_nightly(recipe=recipe)
    except NightStopped as stop:
        print(stop)
        return stop.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
