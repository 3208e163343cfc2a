"""A home that was copied or moved is a home of its own: nothing of it is read from, or written to, where it was."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.retrain_nightly import retrain_nightly
from tasks.night.report import NightReport
from tasks.recipes.recipe import Recipe
from tests.tiny_recipe import tiny_recipe


def client_of(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")


def everything(home: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    found = {path: path.stat() for path in home.rglob("*") if path.is_file()}
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def addresses(home: Path) -> list[str]:
    """All that the tracking store says about where things are."""
    client = client_of(home)
    experiment = client.get_experiment_by_name("nightschool")
    runs = client.search_runs([experiment.experiment_id])
    datasets = [item.dataset.source for run in runs for item in run.inputs.dataset_inputs]
    versions = [version.source for version in models_in(client)]
    homes = [run.data.tags["nightschool.home"] + "/" for run in runs]
    told = [experiment.artifact_location, *(run.info.artifact_uri for run in runs), *datasets, *versions, *homes]
    return [unquote(address) for address in told]


def models_in(client: MlflowClient) -> list[ModelVersion]:
    """Registered models; an attempt on the champion alias is a version, too, and has no files."""
    return [version for version in client.search_model_versions() if not version.source.startswith("models:/")]


def digests(home: Path) -> set[str]:
    """Of the registered models whose files are there."""
    versions = models_in(client_of(home))
    assert all((Path(unquote(urlsplit(version.source).path)) / "model.safetensors").exists() for version in versions)
    return {version.tags["nightschool.digest"] for version in versions}


@contextmanager
def living_in(home: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSCHOOL_HOME", str(home))
        yield


def night(home: Path, recipe: Recipe, rate: float, again: bool = False) -> NightReport:
    overrides: dict[str, Any] = {"sft.optim.peak_lr": rate}
    with living_in(home):
        return retrain_nightly(recipe=recipe, overrides=overrides, again=again)


def trained(report: NightReport) -> str:
    return next(record.digest for record in report.records if record.name == "sft")


def test_a_copy_and_its_original_live_on_apart(
    tmp_path: Path, prefect_server: None, caplog: pytest.LogCaptureFixture
) -> None:
    original, copy = tmp_path / "with space", tmp_path / "copy"
    recipe = tiny_recipe(tmp_path / "raw")
    first = night(original, recipe, 0.005)
    shutil.copytree(original, copy)
    before = everything(original)
    with caplog.at_level(logging.WARNING, "nightschool"):
        in_copy = night(copy, recipe, 0.001)
    assert everything(original) == before, "a night in the copy changes nothing in the original"
    assert f"this home was {original} and is {copy} now" in caplog.text
    assert not [address for address in addresses(copy) if str(copy) not in address]
    assert digests(copy) == {trained(first), trained(in_copy)}
    assert [record.reused for record in in_copy.records[:6]] == [True] * 6

    before = everything(copy)
    in_original = night(original, recipe, 0.002)
    assert everything(copy) == before, "a night in the original changes nothing in the copy"
    assert digests(original) == {trained(first), trained(in_original)}
    assert not [address for address in addresses(original) if str(original) not in address]

    shutil.rmtree(original)
    caplog.clear()
    alone = night(copy, recipe, 0.003)
    assert alone.registered
    assert not original.exists()
    assert digests(copy) == {trained(first), trained(in_copy), trained(alone)}
    assert "this home was" not in caplog.text, "it is told once"

    moved = tmp_path / "moved"
    copy.rename(moved)
    again = night(moved, recipe, 0.003, again=True)
    assert all(record.reused for record in again.records)
    assert again.run_id == alone.run_id
    assert not copy.exists()
    assert not [address for address in addresses(moved) if str(moved) not in address]
