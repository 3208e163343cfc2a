"""What is done at the start in a home that lies elsewhere than before, and what is left alone."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.errors import NightStopped
from tasks.relocation import LOCK, NOTE, places, relocate
from tasks.settings import Settings
from tasks.tracking.delivery import Outbox, spool_folder
from tasks.tracking.mlflow_store import Store
from tests.tasks.rows import stage_record


@pytest.fixture
def home(tmp_path: Path, mlflow_tables: Path) -> Path:
    """A home with one run, an artifact of it, and a version."""
    folder = tmp_path / "home"
    (folder / "mlflow").mkdir(parents=True)
    shutil.copy(mlflow_tables, folder / "mlflow" / "mlflow.db")
    relocate(own(folder))
    fill(own(folder))
    return folder


def own(home: Path) -> Settings:
    return Settings(home, f"sqlite:///{home}/mlflow/mlflow.db")


def fill(settings: Settings) -> str:
    store = Store(settings.tracking_uri, settings.home)
    run_id = store.start_run("night", {})
    tracker = store.tracker(run_id)
    (settings.home / "figure").write_text("picture")
    tracker.artifact(settings.home / "figure")
    tracker.dataset(stage_record(settings.home / "data"), "rows", "training")
    tracker.close("FINISHED")
    return run_id


def texts(database: Path) -> str:
    with sqlite3.connect(database) as connection:
        return "\n".join(connection.iterdump())


def test_every_address_in_the_database_is_changed_and_similar_ones_stay(home: Path, tmp_path: Path) -> None:
    """A neighbour whose name begins alike is another place."""
    with sqlite3.connect(home / "mlflow" / "mlflow.db") as connection:
        connection.execute("INSERT INTO experiment_tags SELECT 'n', ?, experiment_id FROM experiments", (f"{home}2",))
    moved = tmp_path / "moved"
    home.rename(moved)
    relocate(own(moved))
    told = texts(moved / "mlflow" / "mlflow.db")
    assert f"{home}2" in told
    assert f"{home}/" not in told
    assert f"'{home}'" not in told
    assert f"{moved.as_uri()}/mlflow/artifacts" in told
    assert places(moved) == [moved, home]


@pytest.mark.parametrize("way", ["copied", "moved"])
def test_a_home_of_an_earlier_version_is_known_by_its_artifacts(home: Path, tmp_path: Path, way: str) -> None:
    """It has no note of its place, and its spool is named by that."""
    (home / NOTE).unlink()
    there = tmp_path / "there"
    named_then = spool_folder(f"sqlite:///{home}/mlflow/mlflow.db", home, Path())
    waiting = Outbox(own(home).tracking_uri, home).spool
    waiting.append("a run", "create", {"name": "waits", "tags": {}, "parent_id": ""})
    waiting.append("a run", "close", {"status": "FINISHED"})
    shutil.rmtree(named_then, ignore_errors=True)
    waiting.folder.rename(named_then)
    shutil.copytree(home, there) if way == "copied" else home.rename(there)
    relocate(own(there))
    store = Store(own(there).tracking_uri, there)
    assert store.waiting() == 2
    store.deliver()
    [waited] = MlflowClient(store.tracking_uri).search_runs([store.experiment_id()], "attributes.run_name = 'waits'")
    assert waited.info.artifact_uri.startswith(there.as_uri())
    assert waited.data.tags["nightschool.home"] == str(there)
    assert named_then.exists() == (way == "copied")


def test_what_waits_is_told_with_the_place_where_it_is_then(home: Path, tmp_path: Path) -> None:
    outbox = Outbox(own(home).tracking_uri, home)
    assert outbox.address_of(home / "data" / "split@1") == "data/split@1"
    assert outbox.address_of(tmp_path / "raw") == (tmp_path / "raw").as_uri()


@pytest.mark.parametrize("copied", [True, False])
def test_a_database_elsewhere_follows_a_moved_home_and_not_a_copied_one(
    home: Path, tmp_path: Path, mlflow_tables: Path, copied: bool, caplog: pytest.LogCaptureFixture
) -> None:
    database, there = tmp_path / "shared.db", tmp_path / "there"
    shutil.copy(mlflow_tables, database)
    uri = f"sqlite:///{database}"
    fill(Settings(home, uri))
    before = texts(database)
    shutil.copytree(home, there) if copied else home.rename(there)
    relocate(Settings(there, uri))
    assert (texts(database) == before) == copied
    assert ("is left as it is" in caplog.text) == copied
    assert (there.as_uri() in texts(database)) != copied


def test_a_server_is_left_as_it_is_with_a_word(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home.rename(tmp_path / "there")
    relocate(Settings(tmp_path / "there", "http://me:secret@localhost:1"))
    assert "the tracking server http://me:***@localhost:1 is left as it is" in caplog.text


def test_services_of_the_original_are_not_those_of_the_copy(home: Path, tmp_path: Path) -> None:
    """Else `make down` in a copy would stop them."""
    (home / "services").mkdir()
    (home / "services" / "services.json").write_text("[]")
    shutil.copytree(home, tmp_path / "copy")
    relocate(own(tmp_path / "copy"))
    assert (home / "services" / "services.json").exists()
    assert not (tmp_path / "copy" / "services" / "services.json").exists()


def test_another_name_of_the_same_folder_is_no_move(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "link").symlink_to(home)
    before = texts(home / "mlflow" / "mlflow.db")
    relocate(own(tmp_path / "link"))
    assert texts(home / "mlflow" / "mlflow.db") == before
    assert not caplog.records


def test_a_home_that_is_new_or_where_it_was_is_left_alone(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    relocate(own(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    before = texts(home / "mlflow" / "mlflow.db"), (home / NOTE).read_text()
    relocate(own(home))
    assert (texts(home / "mlflow" / "mlflow.db"), (home / NOTE).read_text()) == before
    assert json.loads(before[1]) == {"places": [str(home)]}
    assert not caplog.records


def test_many_that_begin_at_once_in_a_new_home_write_one_note(tmp_path: Path) -> None:
    for number in range(20):
        new = tmp_path / f"home {number}"
        new.mkdir()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(relocate, [own(new)] * 8))
        assert places(new) == [new]


def test_a_home_where_it_was_is_looked_at_without_writing(home: Path) -> None:
    (home / LOCK).unlink(missing_ok=True)
    before = sorted(path.name for path in home.iterdir())
    relocate(own(home))
    assert sorted(path.name for path in home.iterdir()) == before


def test_a_database_that_cannot_be_changed_stops_with_the_cure(home: Path, tmp_path: Path) -> None:
    """It would write into the original otherwise; the next start tries again."""
    moved = tmp_path / "moved"
    home.rename(moved)
    database = moved / "mlflow" / "mlflow.db"
    whole = database.read_bytes()
    database.write_bytes(b"no database, but as long as one of them at least is" * 100)
    with pytest.raises(NightStopped, match=f"was {home} and is {moved} now.*run the same again"):
        relocate(own(moved))
    database.write_bytes(whole)
    relocate(own(moved))
    assert moved.as_uri() in texts(database)


def test_log_level_is_a_warning(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home.rename(tmp_path / "there")
    relocate(own(tmp_path / "there"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
