"""The command line of trials: `find-lr` and `sweep`. Both say what they cost before they start."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.errors import NightStopped

if TYPE_CHECKING:
    from tasks.recipes.recipe import Recipe


FIND_LR, SWEEP = "find-lr", "sweep"
TRIALS = {
    FIND_LR: "Suggest a peak learning rate for pretraining, from a range test on the recipe's own tokens and model.",
    SWEEP: "Train every combination of a few settings for a share of pretraining's steps, on the same tokens. Nothing "
    "is registered; a combination that diverges is a row of the table.",
}


def trial_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a trial."""
    what = argv[0]
    parser = argparse.ArgumentParser(prog=f"python -m flows {what}", description=TRIALS[what])
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe of prefect.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="key.path=value", help="replace one value")
    parser.add_argument("--dry-run", action="store_true", help="say what it will cost, and stop")
    if what == FIND_LR:
        parser.add_argument("--lr-min", type=float, default=1e-6, metavar="RATE", help="first rate; %(default)s")
        parser.add_argument("--lr-max", type=float, default=1.0, metavar="RATE", help="last rate; %(default)s")
        parser.add_argument("--steps", type=int, default=100, metavar="N", help="steps between them; %(default)s")
    else:
        parser.add_argument(
            "--over", action="append", required=True, metavar="key.path=v1,v2",
            help="values of a setting of pretrain or model; again for another setting",
        )  # fmt: skip
        parser.add_argument(
            "--share", type=float, default=0.1, help="of pretraining's steps, for each training; %(default)s"
        )
        parser.add_argument("--seeds", type=int, default=1, metavar="N", help="trainings of each; %(default)s")
    return parser.parse_args(argv[1:])


def try_settings(what: str, recipe: Recipe, chosen: argparse.Namespace) -> int:
    """Say what a trial costs and, unless that was all that was asked, run it; returns the exit code."""
    from tasks.recipes.overrides import parse_over
    from tasks.services.embedded import reaching_prefect
    from tasks.trials.plan import RangeTest, Sweep, range_test_cost, sweep_cost

    asked: RangeTest | Sweep
    try:
        if what == FIND_LR:
            asked = RangeTest(lr_min=chosen.lr_min, lr_max=chosen.lr_max, num_steps=chosen.steps)
        else:
            asked = Sweep(over=parse_over(chosen.over), share=chosen.share, seeds=chosen.seeds)
    except ValueError as error:
        raise NightStopped(str(error)) from error
    cost = range_test_cost(recipe, asked) if isinstance(asked, RangeTest) else sweep_cost(recipe, asked)
    print(cost, flush=True)
    if chosen.dry_run:
        return 0
    with reaching_prefect():
        from flows.find_lr import search_lr
        from flows.sweep import sweep_settings
    report = search_lr(recipe, asked) if isinstance(asked, RangeTest) else sweep_settings(recipe, asked)
    print(f"\n{report.as_text()}")
    return report.exit_code
