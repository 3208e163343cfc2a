"""Every way in which a tracking store can fail ends in a message with its cure, soon, and never in a traceback."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.retrain_nightly import retrain_nightly
from tasks.errors import MESSAGE_LIMIT, Denied, NightStopped, Refused, StoreAway
from tasks.night.by_hand import promote_version
from tasks.tracking import client as boundary
from tasks.tracking.client import EXPERIMENT, connect, within
from tasks.tracking.delivery import Outbox
from tasks.tracking.mlflow_store import Store
from tests.tiny_recipe import tiny_recipe


@contextmanager
def server_that_says(status: int, body: bytes = b"") -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """It accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


BODIES = [b"", b"<html>no</html>", b'{"error_code": "PERMISSION_DENIED", "message": "no"}']


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", BODIES)
def test_a_store_that_denies_access_says_what_to_set(status: int, body: bytes, tmp_path: Path) -> None:
    with server_that_says(status, body) as uri, pytest.raises(Denied, match="MLFLOW_TRACKING_USERNAME") as stop:
        Store(uri, tmp_path).check()
    assert stop.value.exit_code == 2
    assert isinstance(stop.value, StoreAway), "in the middle of a night it goes on"


def test_a_night_that_is_denied_ends_before_it_takes_the_lease(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: None
) -> None:
    with server_that_says(401) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(Denied):
            retrain_nightly(recipe=tiny_recipe(tmp_path / "raw", name="denied"))
    assert not (home / "lease.json").exists()
    assert not (home / "data").exists()


@pytest.mark.parametrize("status", [404, 500, 502, 503])
def test_any_other_answer_is_a_store_that_is_away(
    status: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with server_that_says(status, b"<html>bad gateway</html>") as uri:
        assert not Store(uri, tmp_path).check()
    assert "the tracking store did not answer" in caplog.text
    assert str(status) in caplog.text


def test_a_silent_server_is_away_after_the_probe_and_says_so(
    silent_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every later question asks it again for no longer, whatever MLflow's own time-out is."""
    monkeypatch.setattr(boundary, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr("tasks.tracking.registry.PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    started, store = time.monotonic(), Store(silent_server, tmp_path)
    assert not store.check()
    assert "no answer within 0.1 s" in caplog.text
    run_id = store.start_run("night", {})
    store.tracker(run_id).close("FINISHED")
    with pytest.raises(StoreAway, match="no answer within"):
        store._outbox.call(lambda client: client.get_run(run_id))
    assert store.waiting() == 2
    assert time.monotonic() - started < 60, "half of one time-out of MLflow"


def test_the_probe_is_short_and_its_length_is_known() -> None:
    assert boundary.PROBE_SECONDS == 5.0
    release = threading.Event()
    with pytest.raises(TimeoutError, match=r"0\.01 s"):
        within(0.01, lambda: release.wait() and None)
    release.set()
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0 and None)
    within(5, lambda: None)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("mlruns", "neither the address of a server nor of a database"),
        ("/nonexist", "neither the address of a server nor of a database"),
        ("http//x", "neither the address of a server nor of a database"),
        ("postgresql://host:port/db", "neither the address of a server nor of a database"),
        ("file:///runs", "file: is neither a server nor a database"),
        ("nonsense://host/db", "nonsense: is neither a server nor a database"),
        ("postgres+none://me:secret@host/db", "is neither a server nor a database"),
        ("http://", "it names no host"),
        ("https:///path", "it names no host"),
        ("http://[::1", "it is no address"),
        ("http://host:99999", "its port is no number from 0 to 65535"),
        ("http://my host", "there is a space in it"),
        ("sqlite://", "in memory is gone with the process"),
        ("databricks", "Databricks names an experiment by a path"),
        ("databricks://profile", "Databricks names an experiment by a path"),
    ],
)
def test_an_address_that_can_never_answer_is_named_with_the_cure(
    uri: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A night must not run without tracking for a slip of the pen."""
    with pytest.raises(Refused, match=r"MLFLOW_TRACKING_URI=.* cannot be used, as .*: set it to the address") as stop:
        Store(uri, tmp_path).check()
    assert reason in str(stop.value)
    assert not any(text in str(stop.value) for text in ("secret", "SQLAlchemy", "plugin"))
    assert len(str(stop.value)) < MESSAGE_LIMIT
    assert not caplog.records, "nothing waits for an address that never answers"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "https://me:secret@host/mlflow/", "http://[::1]:80"])
def test_any_other_address_of_a_server_may_answer(uri: str) -> None:
    assert boundary.why_unusable(uri) == ""


def test_a_place_where_no_database_can_be_is_named_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    for path, reason in (
        ("/proc/x.db", "MLflow's database /proc/x.db cannot be made (No such file or directory)"),
        (f"{tmp_path}/file/x.db", f"cannot be made ({tmp_path}/file is a file)"),
        (tmp_path, f"the database {tmp_path} cannot be read: it is a folder"),
    ):
        with pytest.raises(NightStopped) as stop:
            Store(f"sqlite:///{path}", tmp_path).check()
        assert reason in str(stop.value)
    assert not caplog.records


def test_a_database_whose_disk_goes_away_in_a_night_is_a_store_that_is_away(tmp_path: Path) -> None:
    gone = False

    def prepare() -> None:
        if gone:
            raise NightStopped("no file can be made there")

    outbox = Outbox(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path, prepare=prepare)
    outbox.client()
    gone = True
    with pytest.raises(StoreAway, match="away with its disk"):
        outbox.call(lambda client: (_ for _ in ()).throw(StoreAway("away with its disk")))
    with pytest.raises(StoreAway, match="no file can be made there"):
        outbox.call(lambda client: client.get_experiment("0"))
    with pytest.raises(NightStopped) as at_the_start:
        Outbox(outbox.tracking_uri, tmp_path, prepare=prepare).client()
    assert not isinstance(at_the_start.value, StoreAway)


def test_a_missing_driver_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg2", None)
    with pytest.raises(Refused, match=r"psycopg2.*nightschool\[postgresql\]"):
        connect("postgresql://me:secret@127.0.0.1:1/db")


def test_a_deleted_experiment_is_restored_with_a_word(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    run_id, client = store.start_run("night", {}), MlflowClient(store.tracking_uri)
    client.delete_experiment(store.experiment_id())
    assert store.check()
    assert "had been deleted in MLflow and is restored" in caplog.text
    assert client.get_experiment_by_name(EXPERIMENT).lifecycle_stage == "active"
    assert store.reopen(run_id), "its runs are back"


def test_an_experiment_that_is_deleted_meanwhile_loses_nothing(store: Store) -> None:
    run_id, client = store.start_run("night", {}), MlflowClient(store.tracking_uri)
    tracker = store.tracker(run_id)
    client.delete_experiment(store.experiment_id())
    tracker.params({"rate": "0.1"})
    tracker.close("FINISHED")
    run = client.get_run(run_id)
    assert (run.data.params, run.info.status) == ({"rate": "0.1"}, "FINISHED")


def delete(client: MlflowClient, run_id: str) -> None:
    client.delete_run(run_id)


def delete_for_good(client: MlflowClient, run_id: str) -> None:
    from mlflow.tracking._tracking_service.utils import _get_store

    client.delete_run(run_id)
    _get_store(client.tracking_uri)._hard_delete_run(run_id)


@pytest.mark.parametrize("way", [delete, delete_for_good])
def test_a_run_that_is_deleted_meanwhile_is_told_once_and_ends_nothing(
    store: Store, way: Callable[[MlflowClient, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    lost, other = store.start_run("lost", {}), store.start_run("other", {})
    client = MlflowClient(store.tracking_uri)
    way(client, lost)
    for run_id in (lost, other):
        tracker = store.tracker(run_id)
        for number in range(3):
            tracker.params({f"p{number}": "x"})
        tracker.close("FINISHED")
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    assert lost in caplog.text
    assert store.waiting() == 0
    assert client.get_run(other).info.status == "FINISHED"
    assert not store.reopen(lost)


def test_promoting_by_hand_without_a_registry_stops_at_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free.getsockname()[1]}")
    home.mkdir()
    with pytest.raises(StoreAway) as stop:
        promote_version("demo", 1)
    address = os.environ["MLFLOW_TRACKING_URI"]
    assert str(stop.value) == (
        f"the model registry at {address} did not answer (connection refused); nothing was changed, run the same "
        "again when it answers"
    )
    assert not caplog.records, "nothing of it waits"
    assert not (home / "lease.json").exists()
