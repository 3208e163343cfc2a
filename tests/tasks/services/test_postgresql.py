"""Prefect and MLflow on PostgreSQL: nights on the worker, a rollback, an alarm, and two homes that promote at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from tasks.services import processes as services
from tasks.tracking.mlflow_store import Store
from tasks.tracking.versions import CHAMPION, PREVIOUS
from tests.listener import Listener, listening
from tests.servers import Postgres, postgres
from tests.tasks.services.test_processes import Copy, addresses
from tests.tiny_recipe import tiny_content, write_sources

pytestmark = pytest.mark.slow
MODEL = "nightschool-mine"
NIGHTS = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[Postgres]:
    with postgres() as made:
        for database in ("prefect", "mlflow"):
            made.make(database)
        yield made


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with listening() as made:
        yield made


@pytest.fixture(scope="module")
def copy(cluster: Postgres, listener: Listener, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """The services on both databases, with a recipe of their own."""
    made = Copy(tmp_path_factory.mktemp("copy"))
    made.environment |= {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": cluster.url("prefect", "postgresql+asyncpg"),
        "MLFLOW_TRACKING_URI": cluster.url("mlflow"),
        "NIGHTSCHOOL_NOTIFY": listener.address,
    }
    write_sources(made.home / "recipes" / "raw", rows=300)
    own = tiny_content({"text": Path("raw/text.jsonl"), "chat": Path("raw/chat.jsonl")}) | {"name": "mine"}
    (made.home / "recipes" / "mine.yaml").write_text(json.dumps(own))
    up = made.services("up")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        made.said = up.stdout
        yield made
    finally:
        made.services("down")


def aliases(client: MlflowClient) -> dict[str, int]:
    return {name: int(number) for name, number in client.get_registered_model(MODEL).aliases.items()}


def test_three_nights_in_a_row_with_new_data_and_a_rollback(copy: Copy, cluster: Postgres) -> None:
    client = MlflowClient(cluster.url("mlflow"))
    raw = copy.home / "recipes" / "raw" / "text.jsonl"
    promoted = []
    for night in range(1, NIGHTS + 1):
        done = copy.prefect("deployment", "run", "retrain-nightly/mine", "--watch")
        log = (copy.home / "services" / "worker.log").read_text()[-3_000:]
        assert done.returncode == 0, done.stdout + done.stderr + log
        versions = client.search_model_versions(f"name='{MODEL}'")
        assert len(versions) == night
        decided = [entry for entry in entries(copy) if entry["event"] == "decided"]
        promoted = [entry["version"] for entry in decided if entry["promoted"]]
        assert [entry["version"] for entry in decided] == list(range(1, night + 1))
        assert aliases(client)[CHAMPION] == promoted[-1]
        with raw.open("a", encoding="utf-8") as stream:
            text = [f"Night {night}, paragraph {n}: " + "what a row of new data says, at some length. " * 3
                    for n in range(40)]  # fmt: skip
            stream.writelines(json.dumps({"text": line}) + "\n" for line in text)
    [experiment] = [e for e in client.search_experiments() if e.name == "nightschool"]
    nights = client.search_runs([experiment.experiment_id], "tags.`nightschool.kind` = 'night'")
    assert [night.info.status for night in nights] == ["FINISHED"] * NIGHTS
    assert Store(cluster.url("mlflow"), copy.home).waiting() == 0
    trunks = [entry["folder"] for entry in entries(copy) if entry["event"] == "trunk"]
    readings = [json.loads((copy.home / "data" / str(folder) / "reading.json").read_text()) for folder in trunks]
    assert len(set(trunks)) == NIGHTS, "each night went on from the one before"
    assert all(len(list((copy.home / "pages").glob(f"mine@{e['key']}*.html"))) == 1 for e in told_ends(copy)), readings
    lineage = copy.run(sys.executable, "-m", "flows", "lineage", "champion")
    assert lineage.returncode == 0, lineage.stderr

    before = aliases(client)[CHAMPION]
    if before != NIGHTS:
        by_hand = copy.run(sys.executable, "-m", "flows", "promote", "mine", str(NIGHTS))
        assert by_hand.returncode == 0, by_hand.stderr
    previous = aliases(client)[PREVIOUS]
    back = copy.run(sys.executable, "-m", "flows", "rollback", "mine")
    assert back.returncode == 0, back.stderr
    assert aliases(client)[CHAMPION] == previous
    assert aliases(client)[PREVIOUS] == NIGHTS
    assert [entry for entry in entries(copy) if entry["event"] == "trunk"][-1]["back"], "the trunk went back, too"
    states = cluster.sql("SELECT DISTINCT state_type::text FROM flow_run", "prefect")
    assert states == [("COMPLETED",)]


def test_a_night_that_stops_is_told_by_the_server(copy: Copy, listener: Listener) -> None:
    """After the nights: a file of bad lines, which stops one before anything is trained."""
    bad = copy.home / "recipes" / "raw" / "text.jsonl"
    good = bad.read_bytes()
    bad.write_bytes(good + b'{"text": 1}\n' * 4_000)
    listener.told.clear()
    listener.arrived.clear()
    stopped = copy.prefect("deployment", "run", "retrain-nightly/mine", "--watch")
    bad.write_bytes(good)
    assert stopped.returncode != 0
    assert listener.arrived.wait(120), "nobody was told"
    assert [notice for notice in listener.told if "stopped" in notice["title"] and "mine" in notice["title"]]


def told_ends(copy: Copy) -> list[dict[str, object]]:
    return [entry for entry in entries(copy) if entry["event"] == "night"]


def entries(copy: Copy) -> list[dict[str, object]]:
    return [json.loads(line) for line in (copy.home / "journal.jsonl").read_text().splitlines()]


def test_nothing_is_in_sqlite_and_no_password_is_shown(copy: Copy) -> None:
    assert not list(copy.home.rglob("*.db"))
    for entry in json.loads(services.services_file(copy.home).read_text()):
        leader = psutil.Process(entry["pid"])
        for process in (leader, *leader.children(recursive=True)):
            assert "secret" not in " ".join(process.cmdline())
    told = [*copy.home.glob("services/*.log"), copy.home / "journal.jsonl", *copy.home.glob("nights/*")]
    assert not [path.name for path in told if "secret" in path.read_text(errors="replace")]


PROMOTER = """
import sys
from pathlib import Path
from tasks.tracking.mlflow_store import Store
from tasks.tracking.moves.ledger import Overtaken

url, home, version, instead_of = sys.argv[1:]
registry = Store(url, Path(home)).registry("mine")
registry.version_of("champion")
print("ready", flush=True)
sys.stdin.readline()
try:
    registry.make_champion(int(version), f"by {home}", instead_of=int(instead_of))
    print("promoted", flush=True)
except Overtaken as overtaken:
    print(overtaken, flush=True)
"""


def test_of_two_homes_that_promote_at_once_through_one_server_one_does(
    copy: Copy, cluster: Postgres, tmp_path: Path
) -> None:
    client, url = MlflowClient(cluster.url("mlflow")), addresses(copy.said)["MLflow"].partition("/#")[0]
    champion = aliases(client)[CHAMPION]
    others = [number for number in range(1, NIGHTS + 1) if number != champion]
    for attempt in range(3):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROMOTER, url, f"{tmp_path}/{attempt}-{version}", f"{version}", f"{champion}"],
                cwd=copy.project, env=copy.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for version in others
        ]  # fmt: skip
        for process in processes:
            assert process.stdout is not None and process.stdin is not None
            assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = {version: process.communicate()[0].strip() for version, process in zip(others, processes, strict=True)}
        [winner] = [version for version, words in said.items() if words == "promoted"]
        [loser] = set(others) - {winner}
        assert f"version {loser} was to be champion in place of {champion}, and another came first" in said[loser]
        assert aliases(client)[CHAMPION] == winner and aliases(client)[PREVIOUS] == champion
        attempts = Store(url, tmp_path).registry("mine").moves.attempts()
        assert sorted((one.to, one.outcome) for one in attempts[-2:]) == sorted([(winner, "done"), (loser, "lost")])
        champion, others = winner, [loser, champion]


def test_down_leaves_the_databases_as_they_are(copy: Copy, cluster: Postgres) -> None:
    """Last: it ends the services."""
    assert copy.services("down").returncode == 0
    assert cluster.sql("SELECT count(*) >= 3 FROM flow_run", "prefect") == [(True,)]
    assert len(MlflowClient(cluster.url("mlflow")).search_model_versions(f"name='{MODEL}'")) == NIGHTS
