"""What costs seconds is made once: MLflow's tables, the built-in corpus, and a home with a past."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.corpus import build_corpus
from tasks.tracking import Store
from tests.lived_home import LivedHome, copy_of, live_and_train


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    assert not Store(f"sqlite:///{path}", path.parent).reopen("no such run")
    return path


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
def lived(tmp_path_factory: pytest.TempPathFactory) -> LivedHome:
    """A home with two nights; to be read only."""
    return live_and_train(tmp_path_factory.mktemp("lived"))


@pytest.fixture
def copied(lived: LivedHome, tmp_path: Path) -> Path:
    """The same past, for a test that adds to it."""
    return copy_of(lived.home, tmp_path)
