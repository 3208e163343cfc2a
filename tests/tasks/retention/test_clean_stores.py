"""What goes from MLflow and from Prefect's database: rows, files and versions of old nights, and nothing in a role."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from tasks.errors import NightStopped, StoreAway
from tasks.home.journal import Journal
from tasks.recipes.recipe import data_identity
from tasks.recipes.retention_config import RetentionConfig
from tasks.retention import clean as cleaning
from tasks.retention.clean import clean_after_night, clean_home, planned
from tasks.retention.tables import PREFECT_ROWS, give_room_back, old_prefect_rows, remove_prefect_rows
from tasks.services.databases import PREFECT, make_whole
from tasks.tracking.mlflow_store import Store
from tasks.tracking.versions import CHAMPION, PREVIOUS
from tests.tasks.rows import stage_record
from tests.tiny_recipe import tiny_recipe

FEW = RetentionConfig(nights=1, tracked_nights=2, versions=1, unfinished_days=0.0, prefect_days=1.0)


def tracked_night(store: Store, number: int, folder: Path) -> int:
    """A night's run with a stage's that registered a version; its number."""
    tags = {"nightschool.recipe": "tiny", "nightschool.kind": "night"}
    night = store.start_run(f"night {number}", tags)
    stage = store.start_run(f"register {number}", tags | {"nightschool.kind": "stage"}, parent_id=night)
    tracker = store.tracker(stage)
    tracker.metrics({"val/bpb": 1.0 + number}, step=number)
    model = folder / f"night {number}" / "model"
    model.mkdir(parents=True)
    (model / "weights").write_text(f"weights {number}")
    tracker.artifact(model)
    tracker.dataset(stage_record(folder, digest=f"{number}" * 40), "rows", "training")
    tracker.close("FINISHED")
    version = store.registry("tiny").register(stage, f"digest {number}", "", data_identity(tiny_recipe(folder / "raw")))
    parent = store.tracker(night)
    parent.model(store.registry("tiny").model, version, 0)
    parent.close("FINISHED")
    return version


def rows_of(path: Path) -> Counter[str]:
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return Counter({n: connection.execute(f'SELECT count(*) FROM "{n}"').fetchone()[0] for n in names})


def test_old_runs_and_versions_go_with_rows_and_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "prefect_database", lambda: None)
    recipe, registry = replace(tiny_recipe(tmp_path / "raw"), retention=FEW), store.registry("tiny")
    client, sizes = MlflowClient(store.tracking_uri), []
    for number in range(6):
        version = tracked_night(store, number, tmp_path)
        if number < 2:
            registry.set_alias((PREVIOUS, CHAMPION)[number], version)
        with Journal(tmp_path).lease("night") as token:
            clean_home(tmp_path, store.tracking_uri, recipe, token)
        sizes.append(rows_of(tmp_path / "mlflow.db"))
    assert sizes[4] == sizes[5], "rows are flat"
    assert sorted(registry.versions()) == [1, 2, 6]
    for alias in (CHAMPION, PREVIOUS):
        holder = registry.holder_of(alias)
        assert holder
        assert (holder.path / "weights").read_text() == f"weights {holder.version - 1}"
    runs = client.search_runs(client.get_run(client.get_model_version(registry.model, "6").run_id).info.experiment_id)
    every = client.search_runs(runs[0].info.experiment_id, run_view_type=ViewType.ALL)
    assert len(every) == len(runs) == 2 * 4, "the newest two nights, and those of both aliases"
    kept = {path.parent.name for path in (tmp_path / "mlflow" / "artifacts").glob("*/artifacts")}
    assert kept <= {run.info.run_id for run in runs}
    assert not list((tmp_path / "mlflow" / "artifacts").glob(f"*/artifacts/model/weights {3}"))
    assert tracked_night(store, 6, tmp_path) == 7, "numbers are not given twice"


def test_a_cut_deletion_is_finished_by_the_next(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "prefect_database", lambda: None)
    recipe = replace(tiny_recipe(tmp_path / "raw"), retention=FEW)
    for number in range(4):
        tracked_night(store, number, tmp_path)
    old = planned(tmp_path, store.tracking_uri, recipe).runs
    assert len(old) == 4
    client = MlflowClient(store.tracking_uri)
    client.delete_run(old[0].id)
    assert old[1].folder or old[0].folder
    for run in old:
        if run.folder and run.folder.exists():
            (run.folder / "artifacts").rename(run.folder / "gone")
    with Journal(tmp_path).lease("night") as token:
        clean_home(tmp_path, store.tracking_uri, recipe, token)
    for run in old:
        assert run.folder is None or not run.folder.exists()
        with pytest.raises(Exception, match="not found"):
            client.get_run(run.id)


def test_a_store_that_is_away_deletes_nothing_and_ends_no_night(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = replace(tiny_recipe(tmp_path / "raw"), retention=FEW)
    (tmp_path / "data" / "sft@0123.partial").mkdir(parents=True)

    def away(*_: object) -> None:
        raise StoreAway("the tracking store did not answer: refused")

    monkeypatch.setattr(cleaning, "tracked_of", away)
    with Journal(tmp_path).lease("night") as token:
        assert clean_after_night(tmp_path, store.tracking_uri, recipe, token) is None
    assert "could not be cleaned: the tracking store did not answer: refused" in caplog.text
    assert (tmp_path / "data" / "sft@0123.partial").exists()
    quiet = replace(recipe, retention=replace(FEW, clean_each_night=False))
    assert clean_after_night(tmp_path, store.tracking_uri, quiet, token) is None


def test_models_of_an_earlier_release_are_taken_over_first(store: Store, tmp_path: Path) -> None:
    MlflowClient(store.tracking_uri).create_registered_model("nightschool")
    with pytest.raises(NightStopped, match="nothing was cleaned before that: python -m flows tiny"):
        planned(tmp_path, store.tracking_uri, tiny_recipe(tmp_path / "raw"))


@pytest.mark.slow
def test_old_flow_runs_go_with_all_that_is_theirs(tmp_path: Path) -> None:
    path = tmp_path / "prefect.db"
    make_whole(path, PREFECT)
    with closing(sqlite3.connect(path)) as connection:
        for number, ended in (("1", "2020-01-01 00:00:00.000000"), ("2", "2999-01-01 00:00:00.000000")):
            fill(connection, number, ended)
        connection.commit()
    before = rows_of(path)
    assert old_prefect_rows(path, 1.0)["flow_run"] == 1
    assert remove_prefect_rows(path, 1.0) >= 1
    after = rows_of(path)
    for table in ("flow_run", "task_run", "flow_run_state", "log", "events", "event_resources"):
        assert (before[table], after[table]) == (2, 1), table
    assert after["artifact"] == 2, "each is the newest of its key"
    assert sum(old_prefect_rows(path, 1.0).values()) == 0
    assert set(dict(PREFECT_ROWS)) <= set(after)


def fill(connection: sqlite3.Connection, number: str, at: str) -> None:
    """A flow run with a row of everything; what a column needs and the test does not is made up by its type."""
    values = {
        "flow_run_id": number, "end_time": at, "timestamp": at, "occurred": at, "created": at, "updated": at,
        "state_type": "COMPLETED", "flow_id": "f", "parent_task_run_id": None, "task_run_id": number,
        "latest_id": number, "work_queue_id": None, "infrastructure_document_id": None, "state_id": None,
        "result_artifact_id": None,
    }  # fmt: skip
    tables = ("flow", "flow_run", "task_run", "flow_run_state", "log", "artifact", "artifact_collection", "events",
              "event_resources")  # fmt: skip
    for table in tables:
        columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
        row = {}
        for _, name, kind, needed, default, _ in columns:
            if (name in values and name != "flow_run_id") or (name == "flow_run_id" and table != "flow_run"):
                row[name] = values[name]
            elif name == "id":
                row[name] = "f" if table == "flow" else number
            elif needed and default is None:
                row[name] = 0 if any(word in kind for word in ("INT", "FLOAT", "BOOL", "NUM")) else f"{name} {number}"
        marks = ", ".join("?" for _ in row)
        verb = "INSERT OR IGNORE" if table == "flow" else "INSERT"
        connection.execute(f"{verb} INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))


def test_room_is_given_back_when_it_is_a_good_part(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 100_000,)] * 100)
        connection.commit()
        connection.execute("DELETE FROM t WHERE rowid > 90")
        connection.commit()
        assert give_room_back(path) == 0, "a tenth is not worth writing the rest again"
        connection.execute("DELETE FROM t WHERE rowid > 10")
        connection.commit()
        before = path.stat().st_size
        connection.execute("BEGIN IMMEDIATE")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tasks.retention.tables.BUSY_SECONDS", 0.01)
            assert give_room_back(path) == 0, "in use"
        connection.rollback()
    assert give_room_back(path) == before - path.stat().st_size > 8_000_000
