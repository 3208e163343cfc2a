"""The benchmark of fine-tuning measures the recipe's model with one change at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.learning import fine_tuning
from benchmarks.learning.fine_tuning import VARIANTS, changed
from tasks.recipes.deployments import load_recipe
from tests.tasks.conftest import silence_prefect
from tests.tasks.prepared import prepared_tokens
from tests.tasks.rows import stage_record
from tests.tasks.training_runs import run, train
from tests.tiny_recipe import tiny_recipe


def test_a_variant_changes_what_its_name_says() -> None:
    sft = load_recipe("demo").sft
    assert changed(sft, VARIANTS["as the recipe has it"]) == sft
    assert changed(sft, VARIANTS["rate: twice"]).optim.peak_lr == 2 * sft.optim.peak_lr
    assert changed(sft, VARIANTS["steps: half"]).num_tokens == sft.num_tokens // 2
    assert changed(sft, VARIANTS["replay: nothing"]).replay_share == 0
    assert len({changed(sft, variant) for variant in VARIANTS.values()}) >= len(VARIANTS) - 1


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
    results = {
        name: fine_tuning.run(pretrained, packed, changed(recipe.sft, variant))
        for name, variant in VARIANTS.items()
        if "replay" in name or "twice" in name
    }
    assert len({result["chat"] for result in results.values()}) == len(results)
    assert all(2 < result[kind] < 20 for result in results.values() for kind in fine_tuning.KINDS)
    assert results["steps: twice"]["steps"] == 2 * results["replay: half"]["steps"]
