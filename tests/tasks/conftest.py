"""What costs seconds is made once: MLflow's tables, the built-in corpus, packed rows, and a home with a past."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tasks.home.records import StageRecord, file_digests
from tasks.services.databases import MLFLOW
from tasks.sources.builtin import build_corpus
from tasks.tracking.mlflow_store import Store
from tests.lived_home import LivedHome, copy_of, live_and_train
from tests.shortcuts import made_once
from tests.tasks.prepared import Prepared, prepared_tokens
from tests.tasks.rows import stage_record
from tests.tasks.training_runs import run, train
from tests.tiny_recipe import tiny_recipe


@pytest.fixture(scope="session")
def mlflow_tables(shared_folder: Path) -> Path:
    """A database with MLflow's tables and nothing in them."""
    return made_once(MLFLOW, shared_folder)


@pytest.fixture
def store(tmp_path: Path, mlflow_tables: Path) -> Store:
    """An empty store of its own for each test, below `tmp_path`."""
    shutil.copy(mlflow_tables, tmp_path / "mlflow.db")
    return Store(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in corpus; its home is two folders up."""
    return build_corpus(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """The tiny recipe and its text, packed; to be read only."""
    folder = tmp_path_factory.mktemp("tokens")
    recipe = tiny_recipe(folder / "raw")
    tokens = prepared_tokens(recipe, folder)
    made = file_digests(folder)
    yield recipe, tokens
    assert file_digests(folder) == made, "a test wrote to what others read"


def silence_prefect(patch: pytest.MonkeyPatch) -> None:
    """Stages show progress, tables and pages on Prefect's server, which most tests of them do not need."""
    for name in (
        "training.progress.create_progress_artifact",
        "training.progress.update_progress_artifact",
        "stages.deduplicate.create_table_artifact",
        "stages.inspect.create_markdown_artifact",
    ):
        patch.setattr(f"tasks.{name}", lambda *_, **__: None)


@pytest.fixture
def without_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    silence_prefect(monkeypatch)


@pytest.fixture(scope="session")
def trained(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> StageRecord:
    """A training stage's folder with the model of a few steps; to be read only."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        silence_prefect(patch)
        train(run(folder), prepared)
    config = {"train": asdict(prepared[0].sft)}
    return stage_record(folder, stage="sft", config=config, digest=f"weights of {folder.name}")


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory) -> LivedHome:
    """A home with two nights; to be read only."""
    return live_and_train(tmp_path_factory.mktemp("lived"))


@pytest.fixture
def copied(lived: LivedHome, tmp_path: Path) -> Path:
    """The same past, for a test that adds to it."""
    return copy_of(lived.home, tmp_path)
