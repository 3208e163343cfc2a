"""What is logged to MLflow's own experiment lies in the home as well, never in a folder that was current once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.relocation import relocate
from tasks.settings import PROJECT, Settings
from tasks.tracking.mlflow_store import Store
from tests.tasks.services.test_databases import execute


@pytest.fixture
def home(tmp_path: Path, mlflow_tables: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose database was opened first in a folder that is the current one."""
    folder, here = tmp_path / "home", tmp_path / "project"
    (folder / "mlflow").mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    shutil.copy(mlflow_tables, folder / "mlflow" / "mlflow.db")
    execute(folder / "mlflow" / "mlflow.db", "DELETE FROM experiments")
    return folder


def own(home: Path) -> str:
    return f"sqlite:///{home}/mlflow/mlflow.db"


def place(uri: str) -> str:
    return str(MlflowClient(uri).get_experiment("0").artifact_location)


def test_a_new_database_has_it_in_the_home(home: Path, tmp_path: Path) -> None:
    assert Store(own(home), home).check()
    client = MlflowClient(own(home))
    assert place(own(home)) == f"{(home / 'mlflow' / 'artifacts').as_uri()}/0"
    run = client.create_run("0")
    client.log_text(run.info.run_id, "note", "note.txt")
    assert [path.name for path in home.rglob("*.txt")] == ["note.txt"]
    assert list((tmp_path / "project").iterdir()) == []


def test_a_database_that_had_it_elsewhere_is_told_what_stays_there(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = tmp_path / "clone" / "mlruns" / "0"
    before.mkdir(parents=True)
    MlflowClient(own(home)).get_experiment("0")
    execute(home / "mlflow" / "mlflow.db", f"UPDATE experiments SET artifact_location = '{before}'")
    for _ in range(2):
        Store(own(home), home).require()
        assert place(own(home)) == f"{(home / 'mlflow' / 'artifacts').as_uri()}/0"
    assert [str(before) in record.getMessage() for record in caplog.records] == [True], "told once"


@pytest.mark.parametrize("where", ["{project}/mlruns/0", "{current}/mlruns/0"])
def test_in_a_database_of_others_only_what_a_process_of_ours_made_is_changed(
    home: Path, tmp_path: Path, where: str
) -> None:
    shared = tmp_path / "shared.db"
    shutil.copy(home / "mlflow" / "mlflow.db", shared)
    uri, made = f"sqlite:///{shared}", where.format(project=PROJECT, current=tmp_path / "project")
    MlflowClient(uri).get_experiment("0")
    for before, after in (
        ("/srv/mlruns/0", "/srv/mlruns/0"),
        ("mlflow-artifacts:/0", "mlflow-artifacts:/0"),
        ("s3://bucket/mlruns/0", "s3://bucket/mlruns/0"),
        (made, f"{(home / 'mlflow' / 'artifacts').as_uri()}/0"),
    ):
        execute(shared, f"UPDATE experiments SET artifact_location = '{before}' WHERE experiment_id = 0")
        assert Store(uri, home).check()
        assert place(uri) == after


def test_it_moves_with_the_home(home: Path, tmp_path: Path) -> None:
    relocate(Settings(home, own(home)))
    assert Store(own(home), home).check()
    moved = tmp_path / "moved"
    home.rename(moved)
    relocate(Settings(moved, own(moved)))
    assert place(own(moved)) == f"{(moved / 'mlflow' / 'artifacts').as_uri()}/0"
