"""A database of a server is whole or not there, whatever a kill left behind."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.errors import NightStopped
from tasks.services import databases
from tasks.services.databases import MLFLOW, PREFECT, Server, make_whole
from tasks.tracking.mlflow_store import Store

BEFORE = "76601a5f987d"
"""An early revision of MLflow's schema."""


@pytest.fixture
def whole(mlflow_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole database with nothing in it; MLflow's command, which takes seconds, copies it."""
    template = tmp_path / "template.db"
    shutil.copy(mlflow_tables, template)

    def upgrade(self: Server, path: Path) -> None:
        if path.exists():
            execute(path, f"UPDATE alembic_version SET version_num = '{newest(MLFLOW)}'")
        else:
            shutil.copy(template, path)

    monkeypatch.setattr(Server, "upgrade", upgrade)
    return template


def newest(server: Server) -> str:
    [head] = databases.heads(server)
    return head


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def half_made(path: Path) -> None:
    """What a kill leaves of MLflow's first start: a later table is there, and the revision is an earlier one."""
    execute(
        path,
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        f"INSERT INTO alembic_version VALUES ('{BEFORE}')",
        "CREATE TABLE experiments (experiment_id INTEGER)",
        "CREATE TABLE spans (trace_id VARCHAR)",
    )


def no_revision(path: Path) -> None:
    execute(path, "CREATE TABLE experiments (experiment_id INTEGER)")


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"template.db", ".mlflow.db.lock", "home"}


@pytest.mark.parametrize("left", [half_made, no_revision])
def test_a_half_made_database_is_made_anew_and_says_so(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, left: Callable[[Path], None]
) -> None:
    path = tmp_path / "mlflow.db"
    left(path)
    store = Store(f"sqlite:///{path}", tmp_path / "home")
    run_id = store.start_run("night", {})
    assert MlflowClient(store.tracking_uri).get_run(run_id).info.status == "RUNNING"
    assert "was half-made by a run that was killed" in caplog.text
    assert str(path) in caplog.text
    assert files(tmp_path) == {"mlflow.db"}


def test_a_kill_in_the_middle_leaves_no_database(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mlflow.db"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Server, "upgrade", lambda self, beside: (half_made(beside), raise_interrupt()))
        make_whole(path, MLFLOW)
    assert not path.exists()
    half_made(tmp_path / ".mlflow.db.partial")  # what SIGKILL leaves, as nothing of ours runs after it
    (tmp_path / ".mlflow.db.partial-journal").write_bytes(b"of the half-made one")
    make_whole(path, MLFLOW)
    assert databases.revision(path) == newest(MLFLOW)
    assert files(tmp_path) == {"mlflow.db"}


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def old_with_rows(whole: Path, path: Path) -> None:
    shutil.copy(whole, path)
    client = MlflowClient(f"sqlite:///{path}")
    client.create_run(client.create_experiment("kept"))
    execute(path, f"UPDATE alembic_version SET version_num = '{BEFORE}'", "PRAGMA journal_mode = WAL")


def test_an_old_database_is_upgraded_as_a_copy(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, seen, upgrade = tmp_path / "mlflow.db", [], Server.upgrade
    old_with_rows(whole, path)

    def watched(self: Server, beside: Path) -> None:
        upgrade(self, beside)
        seen.append((beside, databases.revision(path)))

    monkeypatch.setattr(Server, "upgrade", watched)
    make_whole(path, MLFLOW)
    assert seen == [(tmp_path / ".mlflow.db.partial", BEFORE)] * 2, "the place is not touched before the copy is done"
    assert databases.rows(path)["runs"] == 1
    assert databases.revision(path) == newest(MLFLOW)
    assert f"was upgraded from schema {BEFORE}" in caplog.text
    assert files(tmp_path) == {"mlflow.db"}


def test_rows_that_cannot_be_upgraded_stay_as_they_are(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, upgrade = tmp_path / "mlflow.db", Server.upgrade
    old_with_rows(whole, path)

    def failing(self: Server, beside: Path) -> None:
        if beside.exists():
            raise NightStopped("table spans already exists")
        upgrade(self, beside)

    monkeypatch.setattr(Server, "upgrade", failing)
    with pytest.raises(NightStopped, match=r"cannot be upgraded; it is left as it was.*backup.*spans already exists"):
        Store(f"sqlite:///{path}", tmp_path / "home").start_run("night", {})
    assert (databases.rows(path)["runs"], databases.revision(path)) == (1, BEFORE)


def test_the_database_of_a_newer_server_is_left_alone(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(whole, path)
    execute(path, "UPDATE alembic_version SET version_num = 'ffff00001111'")
    with pytest.raises(NightStopped, match=r"written by a newer MLflow \(schema ffff00001111\)"):
        make_whole(path, MLFLOW)
    assert databases.revision(path) == "ffff00001111"


def test_a_file_that_is_no_database_is_a_message(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("this is no database" * 100)
    with pytest.raises(NightStopped, match=r"cannot be read \(file is not a database\); put a copy from a backup"):
        Store(f"sqlite:///{path}", tmp_path / "home").start_run("night", {})


def test_a_database_that_runs_is_not_replaced(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mlflow.db"
    old_with_rows(whole, path)
    running = databases.read_services  # the same face, another answer
    assert running(tmp_path) == []
    monkeypatch.setattr(databases, "read_services", lambda home: [type("Service", (), {"name": "mlflow"})])
    with pytest.raises(NightStopped, match=r"what runs must not see \(mlflow\): make down"):
        make_whole(path, MLFLOW)


def test_a_whole_database_is_not_touched(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(whole, path)
    before = path.read_bytes()
    monkeypatch.setattr(Server, "upgrade", lambda self, beside: pytest.fail("a whole one was made again"))
    make_whole(path, MLFLOW)
    assert path.read_bytes() == before
    assert files(tmp_path) == {"mlflow.db"}


def test_the_newest_revisions_are_those_that_the_servers_know() -> None:
    from alembic.script import ScriptDirectory

    for server in (MLFLOW, PREFECT):
        found = databases.importlib.util.find_spec(server.package)
        versions = Path(found.origin).parent / server.versions
        script = ScriptDirectory(versions.parent, version_locations=[versions])
        assert databases.heads(server) == set(script.get_heads())


def test_prefects_own_command_makes_its_database(tmp_path: Path) -> None:
    """Not a stand-in: the command and its variables are Prefect's."""
    path = tmp_path / "prefect.db"
    no_revision(path)
    make_whole(path, PREFECT)
    assert databases.revision(path) == newest(PREFECT)
    assert "flow_run" in databases.rows(path)
