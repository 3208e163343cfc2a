"""The benchmark of fine-tuning measures the recipe's model with one change at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.learning import fine_tuning
from benchmarks.learning.fine_tuning import BASE, VARIANTS
from tasks.recipes.deployments import load_recipe
from tests.tasks.conftest import silence_prefect
from tests.tasks.prepared import prepared_tokens
from tests.tasks.rows import stage_record
from tests.tasks.training_runs import run, train
from tests.tiny_recipe import tiny_recipe


def test_variants_are_recipes_and_no_two_the_same() -> None:
    recipe = load_recipe("demo")
    assert len({recipe.with_overrides(BASE | changes).sft for changes in VARIANTS.values()}) == len(VARIANTS)


def test_a_home_without_a_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fine_tuning.main(["--home", str(tmp_path)])
    assert f"has pretrained its model in {tmp_path}" in capsys.readouterr().err


def test_each_run_is_scored_on_both_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silence_prefect(monkeypatch)
    recipe = tiny_recipe(tmp_path / "raw")
    packed = prepared_tokens(recipe, tmp_path)
    stage = run(tmp_path / "pretrain")
    train(stage, (recipe, packed))
    pretrained = stage_record(stage.folder, stage="pretrain")
    few_steps = {"sft.num_tokens": recipe.sft.num_tokens, "sft.optim.peak_lr": recipe.sft.optim.peak_lr}
    results = [
        fine_tuning.run(pretrained, packed, recipe.with_overrides(BASE | VARIANTS[name] | few_steps).sft)
        for name in ("base", "replay: a quarter", "replay: half")
    ]
    assert len({result["chat"] for result in results}) == len(results)
    assert all(2 < result[kind] < 20 for result in results for kind in fine_tuning.KINDS)
    assert {result["steps"] for result in results} == {8}
