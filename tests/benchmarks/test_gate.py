"""Nights drawn from scores with a known truth: equal models differ in nothing, a gain and a harm are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.evaluation.nights import Pool, effect, nights
from benchmarks.gate import HEAD, curve
from tasks.recipes.stage_configs import PromoteConfig
from tests.tasks.rows import scored_documents
from tests.tiny_recipe import tiny_recipe

CONFIG = PromoteConfig(resamples=100)


def models(seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    rng = np.random.default_rng(seed)
    num_bytes = np.ceil(rng.lognormal(5, 0.8, 400))
    nats = num_bytes * rng.lognormal(0, 0.2, 400)
    domains, sources = pl.Series(["en", "code"] * 200), pl.Series(["a", "a", "b", "b"] * 100)
    one, other = (
        scored_documents(nats * rng.normal(1 + mean, 0.02, 400), num_bytes).with_columns(domain=domains, source=sources)
        for mean in (0.0, 0.03)
    )
    return one, other


def pool() -> Pool:
    return Pool.of(*models(), CONFIG, 1.0)


def test_a_pool_of_two_models_is_made_equal_in_every_domain() -> None:
    table = pool().table
    for _, its in table.group_by("domain"):
        assert its["bits"].sum() / its["champion_bits"].sum() == pytest.approx(0, abs=0.003)
        assert its["bits"].std() > 0


def test_a_night_draws_clusters_of_each_source_by_its_share() -> None:
    night = pool().night(0.25, frozenset("a"), np.random.default_rng(0))
    assert len(night) == night["cluster"].n_unique() == 50
    assert set(night["source"]) == {"a"}


def test_what_is_true_is_mostly_found() -> None:
    of, sources = pool(), frozenset("ab")
    promoted = {
        name: np.mean([decision.promoted for decision in nights(of, truth, 1.0, sources, CONFIG, 40, 0)])
        for name, truth in (
            ("equal", effect(0.0)), ("better", effect(0.03)), ("harmed", effect(0.03, "pretrain/code", 0.04)),
        )
    }  # fmt: skip
    assert promoted["equal"] <= 0.1 and promoted["better"] >= 0.9 and promoted["harmed"] == 0


def test_the_table_has_a_line_a_recipe(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    sources = tuple(replace(source, name=name) for source, name in zip(recipe.sources[:2], "ab", strict=True))
    found = curve(replace(recipe, sources=sources), [models()], 20)
    assert found.row().count("|") == HEAD[0].count("|") == HEAD[1].count("|")
    assert set(found.tolerances) == {"pretrain/code", "pretrain/en"}
