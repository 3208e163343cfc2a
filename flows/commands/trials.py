"""Commands that try settings on a recipe's own data. Both print what they will cost before they start."""

from __future__ import annotations

import argparse

from flows.commands.nights import add_recipe_file, add_recipe_options, resolved_recipe
from tasks.errors import NightStopped


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="name of a recipe; or --recipe FILE")
    add_recipe_file(parser)
    add_recipe_options(parser)


def add_find_lr_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--lr-min", type=float, default=1e-6, metavar="RATE", help="first learning rate; %(default)s")
    parser.add_argument("--lr-max", type=float, default=1.0, metavar="RATE", help="last learning rate; %(default)s")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="steps from first to last; %(default)s")


def find_lr(arguments: argparse.Namespace) -> int:
    """Run a learning rate range test."""
    from tasks.services.embedded import reaching_prefect
    from tasks.trials.plan import RangeTest, range_test_cost

    recipe = resolved_recipe(arguments.recipe, arguments.file, arguments.set)
    try:
        test = RangeTest(lr_min=arguments.lr_min, lr_max=arguments.lr_max, num_steps=arguments.steps)
    except ValueError as error:
        raise NightStopped(str(error)) from error
    print(range_test_cost(recipe, test), flush=True)
    if arguments.dry_run:
        return 0
    with reaching_prefect():
        from flows.find_lr import search_lr
    report = search_lr(recipe, test)
    print(f"\n{report.as_text()}")
    return report.exit_code


def add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument(
        "--over", action="append", required=True, metavar="key.path=v1,v2",
        help="values of a setting of pretrain or model; again for another setting; all combinations are trained",
    )  # fmt: skip
    parser.add_argument(
        "--alone", action="store_true", help="try each value by itself, beside the recipe as it is; not combinations"
    )
    parser.add_argument(
        "--share", type=float, default=0.1, help="share of pretraining's steps that each trains; %(default)s"
    )
    parser.add_argument(
        "--equal", choices=["tokens", "seconds"], default="tokens", help="what settings get alike; %(default)s"
    )
    parser.add_argument(
        "--rungs", type=int, default=1, metavar="N",
        help="train the best third of the settings again, three times as long, N - 1 times; the last gets --share",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="seeds of each setting, in the last rung; %(default)s"
    )


def sweep(arguments: argparse.Namespace) -> int:
    """Train every setting for a share of pretraining's steps; the best again, if there are rungs."""
    from tasks.recipes.overrides import parse_over
    from tasks.services.embedded import reaching_prefect
    from tasks.trials.plan import Sweep, sweep_cost

    recipe = resolved_recipe(arguments.recipe, arguments.file, arguments.set)
    try:
        plan = Sweep(
            over=parse_over(arguments.over), alone=arguments.alone, share=arguments.share, equal=arguments.equal,
            rungs=arguments.rungs, seeds=arguments.seeds,
        )  # fmt: skip
    except ValueError as error:
        raise NightStopped(str(error)) from error
    print(sweep_cost(recipe, plan), flush=True)
    if arguments.dry_run:
        return 0
    with reaching_prefect():
        from flows.sweep import sweep_settings
    report = sweep_settings(recipe, plan)
    print(f"\n{report.as_text()}")
    return report.exit_code
