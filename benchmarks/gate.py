"""The operating curve of the promotion gate: how often it promotes what, on real scores of models of several seeds.

Two models that differ by their seed are made equal in every domain by taking the mean difference out; what is left is
what chance does to documents. A night draws clusters of documents from them, source by source, as many as a recipe's
validation side has; then a known gain or loss is added, and the gate decides. A domain is harmed by half
as much again as its tolerance, which is 1 % or what its documents can tell apart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.evaluation.models import scored_models
from benchmarks.evaluation.nights import Effect, Pool, effect, nights
from tasks.evaluation.gate import per_byte, sizeable_domains
from tasks.evaluation.verdict import Decision
from tasks.recipes.deployments import load_recipe
from tasks.recipes.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
POOL, POOL_SHARE = "nightly", 0.1
"""Whose text the pool of documents is of, and the share of it that is held out for the pool."""
RECIPES = ("demo", "small", "nightly", "minimind-moe")
NIGHTS_A_YEAR, OTHERS = 365, 20
"""And how many times fewer nights there are of every other truth than of equal models."""
BETTER, MUCH_BETTER, HARM = 0.005, 0.02, 1.5


@dataclass(frozen=True)
class Curve:
    """What the gate does with a recipe's validation side."""

    recipe: str
    documents: int
    promotions_a_year: float
    clearly_worse_a_year: float
    power: float
    detectable_share: float
    refused: float
    """Of nights that are better overall and worse in one domain, the least over domains that are judged."""
    tolerances: dict[str, float]
    """Of each domain that is judged: the loss that it may have, as a share of the champion's bits per byte."""

    def row(self) -> str:
        """A line of the table."""
        return (
            f"| {self.recipe} | {self.documents:,} | {self.promotions_a_year:.2f} | {self.clearly_worse_a_year:.2f} | "
            f"{self.power:.2f} | {self.detectable_share:.2%} | {self.refused:.2f} "
            f"({', '.join(f'{name} {share:.1%}' for name, share in self.tolerances.items()) or 'none is judged'}) |"
        )


HEAD = [
    f"| recipe | documents | equal: promotions a year | equal: clearly worse a year | {BETTER:.1%} better: promoted | "
    f"detectable gain | {MUCH_BETTER:.0%} better, a domain worse by {HARM:g} tolerances: refused (tolerances) |",
    "|---|---|---|---|---|---|---|",
]


def curve(recipe: Recipe, pairs: Sequence[tuple[pl.DataFrame, pl.DataFrame]], number: int) -> Curve:
    """The operating curve at the size of a recipe's validation side; `number` nights of each truth."""
    config = recipe.promote
    share = recipe.split.val_share * (1 - recipe.evaluate.audit_share) / POOL_SHARE
    sources = frozenset(source.name for source in recipe.sources)
    of_recipe = pl.col("source").is_in(list(sources))
    pools = [Pool.of(one.filter(of_recipe), other.filter(of_recipe), config, share) for one, other in pairs]

    def decided(truth: Effect, each: int) -> list[Decision]:
        many = (nights(p, truth, share, sources, config, -(-each // len(pools)), n) for n, p in enumerate(pools))
        return [decision for some in many for decision in some]

    equal, better = decided(effect(0.0), number), decided(effect(BETTER), number // OTHERS)
    sample = pools[0].night(share, sources, np.random.default_rng(0))
    bpb = per_byte(sample, "champion_bits")
    tolerances = {name: tolerance(name, equal, sample) for name in sizeable_domains(sample, config)}
    refused = [
        1 - float(np.mean([d.promoted for d in decided(effect(MUCH_BETTER, name, HARM * loss), number // OTHERS)]))
        for name, loss in tolerances.items()
    ]
    return Curve(
        recipe.name, len(sample), NIGHTS_A_YEAR * float(np.mean([d.promoted for d in equal])),
        NIGHTS_A_YEAR * float(np.mean([d.clearly_worse for d in equal])), float(np.mean([d.promoted for d in better])),
        float(np.mean([d.minimum_detectable_bpb for d in equal])) / bpb, min(refused, default=0.0), tolerances,
    )  # fmt: skip


def tolerance(domain: str, decisions: Sequence[Decision], sample: pl.DataFrame) -> float:
    """What a domain may lose on a night that is neither lucky nor unlucky, as a share of its bits per byte."""
    its = sample.filter(pl.col("domain") == domain)
    allowed = [v.tolerance_bpb for d in decisions for v in d.domains if v.name == domain and v.judged]
    return float(np.median(allowed)) / per_byte(its, "champion_bits")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="models; every two of them are compared")
    parser.add_argument("--share", type=float, default=0.6, help="of the tokens of the recipe demo, for each model")
    parser.add_argument("--nights", type=int, default=4_000, help="of equal models; a twentieth of every other truth")
    parser.add_argument("--val-share", type=float, help="another split.val_share for every recipe")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--work", type=Path, default=ROOT / "store" / "bench-gate", help="keeps texts and scores")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 0 if a year promotes at most one equal model in expectation, for every recipe."""
    args = arguments(argv)
    pooled = load_recipe(POOL)
    pooled = replace(pooled, split=replace(pooled.split, val_share=POOL_SHARE))
    models = list(scored_models(pooled, range(1, args.seeds + 1), args.share, args.work))
    pairs = list(combinations(models, 2))
    print("\n".join(HEAD))
    curves = []
    for name in args.recipes:
        recipe = load_recipe(name)
        if args.val_share:
            recipe = replace(recipe, split=replace(recipe.split, val_share=args.val_share))
        curves.append(curve(recipe, pairs, args.nights))
        print(curves[-1].row(), flush=True)
    return 0 if all(found.promotions_a_year <= 1 for found in curves) else 1


if __name__ == "__main__":
    sys.exit(main())
