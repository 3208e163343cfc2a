"""Whatever the store does, what a night reports arrives in it once, in order, and the night goes on meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from tasks.tracking import delivery, mlflow_store
from tasks.tracking.client import Pause
from tasks.tracking.delivery import SPOOL_ID, Outbox
from tasks.tracking.mlflow_store import Store
from tests.tasks.tracking.fake_mlflow import FakeClient, FakeServer, Killed, answers, report_a_night

HEALTHY_CALLS = 40
"""More than a night without faults makes, or the delivery of one."""
LOSSES = ("lost request", "lost answer", "half")


@pytest.fixture(autouse=True)
def small_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps make several deliveries; and no machine dies here, so nothing needs the disk."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr(delivery, "BATCH_POINTS", 4)
    monkeypatch.setattr(mlflow_store, "BATCH_POINTS", 4)


Opened = Callable[..., Store]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """`opened(server, home, clock)`: the store as a new process has it, with a clock that stands still."""
    servers: dict[str, FakeServer] = {}
    monkeypatch.setattr(delivery, "connect", lambda uri: FakeClient(servers[uri]))

    def opened(server: FakeServer, home: Path, clock: Callable[[], float] = lambda: 0.0) -> Store:
        servers[f"http://{home}"] = server
        monkeypatch.setattr(mlflow_store, "outbox_of", lambda uri, home: Outbox(uri, home, clock))
        return Store(f"http://{home}", home)

    return opened


@pytest.fixture
def expected(opened: Opened, tmp_path: Path) -> dict[str, object]:
    """What a server has after a night without faults."""
    server = FakeServer()
    store = opened(server, tmp_path / "healthy")
    night, stage = report_a_night(store, tmp_path / "healthy files")
    assert set(server.runs) == {night, stage}, "ids are the server's own"
    assert HEALTHY_CALLS / 2 < len(server.calls) < HEALTHY_CALLS
    assert_clean(store, tmp_path / "healthy")
    state = server.state()
    assert [p for p in state["pretrain"]["points"] if p[0] == "train/loss"] == [
        ("train/loss", n, 1 / n) for n in range(1, 9)
    ]
    assert state["pretrain"]["parent"] == "night"
    assert state["pretrain"]["artifacts"] == {
        "model/config": b"{}", "model/weights": b"weights", "reports/summary.md": b"# Night",
        "summary.md": b"# Night, again",
    }  # fmt: skip
    return state


def assert_clean(store: Store, home: Path) -> None:
    """Nothing waits, and no copy of an artifact or a call is left."""
    assert store.waiting() == 0
    assert {path.name for path in (home / "spool").rglob("*") if path.is_file()} <= {
        ".append.lock", ".deliver.lock", "ids.jsonl",
    }  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
def test_one_fault_at_any_call_changes_nothing(
    opened: Opened, tmp_path: Path, expected: dict[str, object], loss: str
) -> None:
    for fault in range(HEALTHY_CALLS):
        server = FakeServer(lambda call, _, fault=fault: loss if call == fault else "answers")
        store = opened(server, tmp_path / str(fault))
        night, stage = report_a_night(store, tmp_path / f"{fault} files")
        store.deliver()
        assert server.state() == expected, f"fault at call {fault}"
        assert_clean(store, tmp_path / str(fault))
        assert server.runs[store.resolve(night)].name == "night"
        assert server.runs[store.resolve(stage)].name == "pretrain"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(losses=st.lists(st.sampled_from(["answers", *LOSSES]), max_size=80), seconds=st.sampled_from([0.0, 1.0, 40.0]))
def test_many_faults_change_nothing(
    opened: Opened,
    expected: dict[str, object],
    tmp_path_factory: pytest.TempPathFactory,
    losses: list[str],
    seconds: float,
) -> None:
    """With a clock that stands, creeps or runs, so that pauses and slow deliveries end anywhere."""
    home, ticks = tmp_path_factory.mktemp("home"), count()
    server = FakeServer(lambda call, _: losses[call] if call < len(losses) else "answers")
    store = opened(server, home, lambda: next(ticks) * seconds)
    report_a_night(store, home / "files")
    for _ in range(len(losses) + 1):
        store.deliver()
    assert server.state() == expected
    assert store.waiting() == 0


def test_a_store_that_is_away_all_night_gets_it_the_next_night(
    opened: Opened, tmp_path: Path, expected: dict[str, object]
) -> None:
    server = FakeServer(lambda *_: "lost request")
    store = opened(server, tmp_path)
    ids = report_a_night(store, tmp_path / "files")
    assert len(set(ids)) == 2
    assert all(len(run_id) == 32 and int(run_id, 16) for run_id in ids), "ids look like MLflow's"
    assert store.experiment_id() == ""
    assert store.close_orphans() == 0
    assert store.waiting() > 20
    server.behaviour = answers
    morning = opened(server, tmp_path)
    waiting = morning.waiting()
    delivery = morning.deliver()
    assert (delivery.delivered, delivery.waiting) == (waiting, 0)
    assert server.state() == expected
    assert_clean(morning, tmp_path)
    assert {server.runs[morning.resolve(run_id)].tags[SPOOL_ID] for run_id in ids} == set(ids)
    assert morning.reopen(ids[1]), "the night that is run again knows its run by the id it was given"
    assert server.runs[morning.resolve(ids[1])].status == "RUNNING"


@pytest.mark.parametrize("moment", ["killed before", "killed after"])
def test_a_kill_at_any_call_of_a_delivery_changes_nothing(
    opened: Opened, tmp_path: Path, expected: dict[str, object], moment: str
) -> None:
    for kill in range(HEALTHY_CALLS):
        home = tmp_path / str(kill)
        report_a_night(opened(FakeServer(lambda *_: "lost request"), home), tmp_path / f"{kill} files")
        server = FakeServer(lambda call, _, kill=kill: moment if call == kill else "answers")
        try:
            opened(server, home).deliver()
        except Killed:
            opened(server, home).deliver()
        assert server.state() == expected, f"killed at call {kill}"
        assert_clean(opened(server, home), home)
    assert len(server.calls) < HEALTHY_CALLS, "each call of a delivery was the last of one"


def test_times_are_those_of_the_night(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(lambda *_: "lost request")
    store = opened(server, tmp_path)
    monkeypatch.setattr("time.time", lambda: 1_000.0)
    run_id = store.start_run("night", {})
    tracker = store.tracker(run_id)
    tracker.metrics({"val/bpb": 1.0})
    monkeypatch.setattr("time.time", lambda: 2_000.0)
    tracker.close("FINISHED")
    monkeypatch.setattr("time.time", lambda: 9_000.0)
    server.behaviour = answers
    store.deliver()
    run = server.runs[store.resolve(run_id)]
    assert (run.start_time, run.end_time) == (1_000_000, 2_000_000)
    assert list(run.points) == [("val/bpb", 0, 1.0, 1_000_000)]


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged while the test runs."""
    logged: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(self.format(record))

    handler, logger = Keep(), logging.getLogger("nightschool")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield logged
    logger.setLevel(level)
    logger.removeHandler(handler)


def test_one_warning_an_outage_and_few_tries(opened: Opened, tmp_path: Path, lines: list[str]) -> None:
    """A hanging store costs a time-out for each try, so a night without it must not try often."""
    server, now = FakeServer(lambda *_: "lost request"), [0.0]
    store = opened(server, tmp_path, lambda: now[0])
    tracker = store.tracker(store.start_run("stage", {}))
    for step in range(1, 1_001):
        now[0] += 1.0
        tracker.metrics({"train/loss": 1.0, "train/lr": 0.1, "a": 1.0, "b": 1.0}, step)
        tracker.params({f"p{step}": "1"})
    tries = server.calls.count("get_experiment_by_name")
    assert tries == len(server.calls)
    assert tries == 6, "after 0, 30, 90, 210, 450 and 750 seconds"
    [warning] = lines
    assert "did not answer" in warning
    assert "no route to the server" in warning
    assert str(tmp_path / "spool") in warning
    server.behaviour = answers
    tracker.close("FINISHED")
    assert lines[1:] == ["the tracking store answers again"]
    [run] = server.runs.values()
    assert len(run.points) == 4_000
    assert len(run.params) == 1_000


def test_a_long_spool_is_delivered_in_parts_while_a_stage_trains(opened: Opened, tmp_path: Path) -> None:
    server, now = FakeServer(lambda *_: "lost request"), [0.0]
    store = opened(server, tmp_path, lambda: now[0])
    tracker = store.tracker(store.start_run("stage", {}))
    for step in range(1, 1_001):
        tracker.metrics({"train/loss": 1.0}, step)

    def slow(*_: object) -> str:
        now[0] += 0.2
        return "answers"

    server.behaviour = slow
    now[0] += 600.0
    before = now[0]
    tracker.tags({"a": "b"})
    assert now[0] - before <= delivery.DELIVERY_SECONDS + 2
    assert 900 < store.waiting() < 1_001
    tracker.close("FINISHED")
    assert store.waiting() == 0


def test_what_the_store_refuses_stops_nothing_and_is_kept(opened: Opened, tmp_path: Path, lines: list[str]) -> None:
    server = FakeServer()
    store = opened(server, tmp_path)
    tracker = store.tracker(store.start_run("stage", {}))
    tracker.params({"a": "1"})
    tracker.params({"a": "2"})
    tracker.metrics({"train/loss": 1.0}, 1)
    tracker.metrics({"what!": 1.0}, 1)
    tracker.metrics({"train/loss": 0.5}, 2)
    tracker.close("FINISHED")
    [run] = server.runs.values()
    assert run.params == {"a": "1"}
    assert sorted(run.points)[0][:3] == ("train/loss", 1, 1.0)
    assert len(run.points) == 2
    assert run.status == "FINISHED"
    [refused] = (tmp_path / "spool").rglob("refused.jsonl")
    assert [name in refused.read_text() for name in ('"a": "2"', "what!", "0.5")] == [True, True, False]
    assert len(lines) == 2
    assert str(refused) in lines[0]
    assert store.waiting() == 0


def test_a_deleted_run_is_met_once_a_delivery_not_once_a_step(opened: Opened, tmp_path: Path, lines: list[str]) -> None:
    server = FakeServer()
    store = opened(server, tmp_path)
    run_id = store.start_run("stage", {})
    tracker = store.tracker(run_id)
    server.runs.clear()
    for step in range(1, 5):
        tracker.metrics({"train/loss": 1.0}, step)
    assert len(lines) == 1
    assert not store.reopen(run_id), "so a stage that goes on gets a new run"


def test_a_run_that_cannot_be_delivered_does_not_keep_the_others(
    opened: Opened, tmp_path: Path, lines: list[str]
) -> None:
    """The artifacts may lie on another server than the runs."""
    server = FakeServer(lambda _, name: "lost request" if name == "log_artifact" else "answers")
    store = opened(server, tmp_path)
    (tmp_path / "figure.png").write_bytes(b"picture")
    trackers = [store.tracker(store.start_run(f"stage {n}", {})) for n in range(4)]
    trackers[1].artifact(tmp_path / "figure.png")
    trackers[1].tags({"a": "b"})
    assert server.calls.count("log_artifact") == 1, "what failed is left alone for a while, though the store answers"
    assert len(lines) == 1
    for n, tracker in enumerate(trackers):
        tracker.metrics({"n": float(n)})
        tracker.close("FINISHED")
    assert [run.status for run in server.runs.values()] == ["FINISHED", "RUNNING", "FINISHED", "FINISHED"]
    server.behaviour = answers
    store.deliver()
    assert [run.status for run in server.runs.values()] == ["FINISHED"] * 4
    assert [run.artifacts for run in server.runs.values()] == [{}, {"figure.png": b"picture"}, {}, {}]
    assert store.waiting() == 0


def test_a_run_started_during_an_outage_and_killed_is_closed_the_next_night(opened: Opened, tmp_path: Path) -> None:
    server = FakeServer(lambda *_: "lost request")
    store = opened(server, tmp_path)
    run_id = store.start_run("stage", {})
    store.tracker(run_id).tags({"a": "b"})
    server.behaviour = answers
    assert opened(server, tmp_path).close_orphans() == 1
    [run] = server.runs.values()
    assert (run.status, run.tags["a"]) == ("KILLED", "b")
    assert_clean(store, tmp_path)


def test_stores_do_not_get_each_others_calls(opened: Opened, tmp_path: Path) -> None:
    """Somebody whose server is down may go on with another store; the runs there are others."""
    server = FakeServer(lambda *_: "lost request")
    store = opened(server, tmp_path)
    store.tracker(store.start_run("stage", {})).close("FINISHED")
    other = Outbox("http://another", tmp_path)
    assert (store.waiting(), other.spool.waiting()) == (2, 0)


def test_the_pause_doubles_to_five_minutes_and_ends_with_an_answer() -> None:
    now = [0.0]
    pause = Pause(lambda: now[0])
    assert (pause.seconds_left, pause.end()) == (0.0, False)
    lengths = []
    for n in range(6):
        assert pause.begin() == (n == 0)
        lengths.append(pause.seconds_left)
        now[0] += pause.seconds_left
        assert pause.seconds_left == 0.0
    assert lengths == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]
    assert pause.end()
    assert pause.begin()
    assert pause.seconds_left == 30.0


def test_mlflow_itself_gets_a_night_that_was_spooled(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gets all of it twice over, as a delivery that was killed before it could note anything would send it."""

    def away(uri: str) -> object:
        raise ConnectionError("the store is away")

    with monkeypatch.context() as outage:
        outage.setattr(delivery, "connect", away)
        night, stage = report_a_night(store, tmp_path / "files")
    spool = next(path for path in (tmp_path / "spool").iterdir() if path.is_dir())
    kept = {path: path.read_bytes() for path in spool.rglob("*") if path.is_file()}
    assert store.deliver().waiting == 0
    for path, content in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert store.waiting() > 20
    assert store.deliver().waiting == 0
    client = MlflowClient(store.tracking_uri)
    runs = client.search_runs([store.experiment_id()])
    assert {run.info.run_id for run in runs} == {store.resolve(night), store.resolve(stage)}
    run = client.get_run(store.resolve(stage))
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == store.resolve(night)
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((m.step, m.value) for m in history) == [(n, 1 / n) for n in range(1, 9)]
    assert len(run.inputs.dataset_inputs) == 1
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"model", "reports", "summary.md"}
    assert client.get_run(store.resolve(night)).data.params == {"recipe": "demo"}
