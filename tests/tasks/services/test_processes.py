"""`make up`, a run on the worker, `make down`: on a copy of the project, with a home of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks.home.journal import Journal
from tasks.services import processes as services
from tests.listener import listening
from tests.shortcuts import MLFLOW_FILE, with_databases
from tests.tiny_recipe import tiny_content, write_sources
from tests.waiting import ask

ROOT = Path(__file__).resolve().parents[3]
POLLS = 400


class Copy:
    """The project in a folder of its own; `prefect.toml` and the home appear there and nowhere else."""

    def __init__(self, folder: Path) -> None:
        self.project, self.home = folder / "project", folder / "home"
        self.project.mkdir()
        for name in ("flows", "tasks", "data", "schemas", "model", "prefect.yaml", "pyproject.toml"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, self.project / name)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "NIGHTSCHOOL_"))}
        self.environment = clean | {
            "NIGHTSCHOOL_HOME": str(self.home),
            "PYTHONPATH": str(self.project),
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.project, env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )

    def services(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "tasks.services", *words)

    def prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(Path(sys.executable).with_name("prefect")), "--no-prompt", *arguments)

    def schedules(self, recipe: str) -> dict[str, bool]:
        """Of a deployment: its cron lines, and whether they are armed."""
        url = addresses(self.said)["Prefect"]
        found = ask("GET", f"{url}/api/deployments/name/retrain-nightly/{recipe}").json()
        return {schedule["schedule"]["cron"]: schedule["active"] for schedule in found["schedules"]}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Iterator[Copy]:
    made = Copy(tmp_path_factory.mktemp("copy"))
    with_databases(made.home, shared_folder)
    (made.home / MLFLOW_FILE).unlink()  # one is made by `up`
    write_sources(made.home / "recipes" / "raw")
    own = tiny_content({"text": Path("raw/text.jsonl"), "chat": Path("raw/chat.jsonl")}) | {"name": "mine"}
    own |= {"schedules": [{"cron": "0 4 * * *", "timezone": "Asia/Shanghai"}]}
    (made.home / "recipes" / "mine.yaml").write_text(json.dumps(own))
    up = made.services("up")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        made.said = up.stdout
        yield made
    finally:
        made.services("down")


def addresses(said: str) -> dict[str, str]:
    lines = (line.split() for line in said.splitlines() if line.startswith(("Prefect  ", "MLflow  ")))
    return {name: url for name, url, *_ in lines}


def test_both_user_interfaces_answer_on_loopback(copy: Copy) -> None:
    found = addresses(copy.said)
    assert found.keys() == {"Prefect", "MLflow"}
    for url in found.values():
        assert url.startswith("http://127.0.0.1:")
        assert "<html" in ask("GET", url, follow_redirects=True).text.lower()


def test_the_prefect_command_finds_the_server_and_the_deployments(copy: Copy) -> None:
    listed = copy.prefect("deployment", "ls")
    assert listed.returncode == 0, listed.stderr
    for name in ("demo", "small", "nightly", "minimind-moe"):
        assert f"retrain-nightly/{name}" in listed.stdout
    assert "30 1 * * *" in copy.prefect("deployment", "schedule", "ls", "retrain-nightly/nightly").stdout


def test_a_schedule_is_paused_until_it_is_armed(copy: Copy) -> None:
    assert copy.schedules("nightly") == {"30 1 * * *": False}
    assert copy.schedules("mine") == {"0 4 * * *": False}
    assert "Schedule nightly (30 1 * * * UTC): paused; to arm it: make arm RECIPE=nightly\n" in copy.said
    assert "Schedule mine (0 4 * * * Asia/Shanghai): paused; to arm it: make arm RECIPE=mine\n" in copy.said
    armed = copy.services("arm", "mine")
    assert armed.returncode == 0, armed.stderr
    assert re.fullmatch(
        r"Schedule mine \(0 4 \* \* \* Asia/Shanghai\): armed, runs next 20\d\d-\d\d-\d\d 04:00 Asia/Shanghai; "
        r"to pause it: make disarm RECIPE=mine\n",
        armed.stdout,
    )
    assert (copy.schedules("mine"), copy.schedules("nightly")) == ({"0 4 * * *": True}, {"30 1 * * *": False})


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("demo", "retrain-nightly/demo has no schedule; give its recipe `schedules`, then: make up"),
        ("nope", "no deployment retrain-nightly/nope; there are demo, mine, minimind-moe, nightly, small"),
    ],
)
def test_what_cannot_be_armed_is_told(copy: Copy, recipe: str, said: str) -> None:
    done = copy.services("arm", recipe)
    assert (done.returncode, done.stderr.strip()) == (2, said)


def test_a_run_of_an_own_recipe_on_the_worker_completes_and_is_tracked(copy: Copy) -> None:
    """Its sources are relative to its file."""
    done = copy.prefect("deployment", "run", "retrain-nightly/mine", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr + (copy.home / "services" / "worker.log").read_text()[-3000:]
    url = addresses(copy.said)["MLflow"]
    assert "Completed('Promoted (version 1): " in " ".join(done.stdout.split()), "what is watched says how it ended"
    search = {"experiment_ids": ["1"], "filter": "tags.`nightschool.kind` = 'night'"}
    [night] = ask("POST", f"{url}/api/2.0/mlflow/runs/search", json=search).json()["runs"]
    assert night["info"]["status"] == "FINISHED"
    assert "val/bpb" in {metric["key"] for metric in night["data"]["metrics"]}
    wanted = {"logs": {"level": {"ge_": 20}}, "limit": 200}
    logs = ask("POST", f"{addresses(copy.said)['Prefect']}/api/logs/filter", json=wanted).json()
    assert any(line["name"] == "nightschool" and "bits per byte" in line["message"] for line in logs)


def test_nights_on_the_worker_that_find_the_home_held_say_who_holds_it(copy: Copy) -> None:
    """Two at once, while a third runs; none waits, and none keeps anything of Prefect's from those that come."""
    api = f"{addresses(copy.said)['Prefect']}/api"
    deployment = ask("GET", f"{api}/deployments/name/retrain-nightly/mine").json()
    assert deployment["global_concurrency_limit"] is None
    with Journal(copy.home).lease("the night before"):
        ordered = [ask("POST", f"{api}/deployments/{deployment['id']}/create_flow_run", json={}).json() for _ in "ab"]
        pause = threading.Event()
        for _ in range(POLLS):
            states = [ask("GET", f"{api}/flow_runs/{run['id']}").json()["state"] for run in ordered]
            if all(state["type"] == "CANCELLED" for state in states):
                break
            pause.wait(0.5)
    told = rf"another night is running in {copy.home} \(the night before, process {os.getpid()} on "
    assert [state["type"] for state in states] == ["CANCELLED"] * 2, states
    assert all(re.match(told, state["message"]) for state in states), states


def test_alarms_are_made_with_the_services_and_tried_by_hand(copy: Copy) -> None:
    assert "Alarms go to nobody: NIGHTSCHOOL_NOTIFY is not set\n" in copy.said
    untold = copy.services("alarm-test")
    assert untold.returncode == 2 and "NIGHTSCHOOL_NOTIFY is not set" in untold.stderr
    with listening() as listener:
        copy.environment["NIGHTSCHOOL_NOTIFY"] = f"{listener.address}/secret-token"
        try:
            again, tried = copy.services("up"), copy.services("alarm-test")
        finally:
            del copy.environment["NIGHTSCHOOL_NOTIFY"]
    assert again.returncode == 0, again.stderr
    assert "automation made: nightschool: no night of mine finished\n" in again.stdout, "it is armed"
    assert "every address of NIGHTSCHOOL_NOTIFY took it" in tried.stdout, tried.stderr
    assert [told["message"] for told in listener.told] == ["Alarms arrive here."]
    assert "secret-token" not in again.stdout + tried.stdout + (copy.home / "services" / "prefect.log").read_text()


def test_up_again_starts_nothing_twice(copy: Copy) -> None:
    before = services.services_file(copy.home).read_text()
    again = copy.services("up")
    assert again.returncode == 0, again.stderr
    assert services.services_file(copy.home).read_text() == before
    assert (copy.schedules("mine"), copy.schedules("nightly")) == ({"0 4 * * *": True}, {"30 1 * * *": False})
    link = "/#/experiments/1/runs?viewStateShareKey=nights&workflowType=machine_learning"
    assert addresses(again.stdout)["MLflow"] == addresses(copy.said)["MLflow"] + link, "there is a night by now"
    assert "Schedule mine (0 4 * * * Asia/Shanghai): armed, runs next" in again.stdout
    link = "/#/experiments/1/runs?viewStateShareKey=nights&workflowType=machine_learning"
    assert addresses(again.stdout)["MLflow"] == addresses(copy.said)["MLflow"] + link, "there is a night by now"


def test_a_wrong_recipe_is_refused_before_anything_is_started(copy: Copy) -> None:
    wrong = copy.home / "recipes" / "wrong.yaml"
    wrong.write_text('{"name": "wrong", "sources": [], "schedules": [{"cron": "30 1 * * *"}], "pretrian": {}}')
    up = copy.services("up")
    wrong.unlink()
    assert up.returncode == 2
    assert str(wrong) in up.stderr and "pretrian" in up.stderr
    assert up.stdout == ""


def test_a_schedule_is_paused_again_when_asked_and_a_recipe_that_went_is_named(copy: Copy) -> None:
    assert copy.services("disarm", "mine").returncode == 0
    assert copy.schedules("mine") == {"0 4 * * *": False}
    (copy.home / "recipes" / "mine.yaml").unlink()
    again = copy.services("up").stdout
    assert "No recipe is called mine any more: .venv/bin/prefect deployment delete retrain-nightly/mine" in again


def test_down_for_another_home_says_which_home_runs(copy: Copy, tmp_path: Path) -> None:
    before = (copy.project / "prefect.toml").read_text()
    copy.environment["NIGHTSCHOOL_HOME"] = str(tmp_path / "other")
    try:
        down = copy.services("down")
    finally:
        copy.environment["NIGHTSCHOOL_HOME"] = str(copy.home)
    assert down.returncode == 2
    assert f"run for another home: NIGHTSCHOOL_HOME={copy.home} make down" in down.stderr
    assert (copy.project / "prefect.toml").read_text() == before


def test_what_a_killed_mlflow_left_is_ended_and_served_anew(copy: Copy) -> None:
    entries = {entry["name"]: entry for entry in json.loads(services.services_file(copy.home).read_text())}
    mlflow = psutil.Process(entries["mlflow"]["pid"])
    left = mlflow.children(recursive=True)
    assert left, "its own server process holds the port"
    mlflow.kill()
    mlflow.wait()
    up = copy.services("up")
    assert up.returncode == 0, up.stderr
    assert f"left over from a killed mlflow ({mlflow.pid})" in up.stdout
    assert not any(process.is_running() for process in left)
    assert addresses(up.stdout)["MLflow"].startswith(entries["mlflow"]["url"]), "the port was free again"


def test_down_stops_what_was_started_and_nothing_else(copy: Copy) -> None:
    """Last: it ends the services."""
    pids = [entry["pid"] for entry in json.loads(services.services_file(copy.home).read_text())]
    assert len(pids) == 3
    assert all(psutil.pid_exists(pid) for pid in pids)
    down = copy.services("down")
    assert down.returncode == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not (copy.project / "prefect.toml").exists()
    assert copy.services("down").stdout == "nothing was running\n"


def test_a_process_that_took_over_an_old_id_is_not_ours() -> None:
    mine = psutil.Process()
    assert services.Service("x", mine.pid, mine.create_time()).process() is not None
    assert services.Service("x", mine.pid, mine.create_time() - 100).process() is None


SLEEPER = "import time; print('here', flush=True); time.sleep(600)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPER!r}])"


def family(folder: Path) -> tuple[services.Service, psutil.Process]:
    """A service and its child, which waits."""
    service = services.start_service("family", [sys.executable, "-c", PARENT], dict(os.environ), folder)
    log = folder / "services" / "family.log"
    services.wait_until_healthy(lambda: "here" in log.read_text(), service, folder)
    [child] = service.process().children()
    return service, child


@pytest.mark.parametrize("killed", [False, True])
def test_a_service_ends_with_all_that_it_started(tmp_path: Path, killed: bool) -> None:
    service, child = family(tmp_path)
    if killed:
        psutil.Process(service.pid).kill()
        psutil.Process(service.pid).wait()
        assert service.process() is None
        assert service.members() == [child]
    assert services.stop_service(service) == 2 - killed
    assert not services.runs(child)
    assert services.stop_service(service) == 0


def test_what_only_has_the_number_of_a_service_is_not_ended(tmp_path: Path) -> None:
    """The number was given to another process, which leads a session of its own."""
    service, child = family(tmp_path)
    try:
        other = services.Service("family", service.pid, service.started - 100)
        assert other.members() == []
        assert services.stop_service(other) == 0
        assert services.runs(child)
    finally:
        services.stop_service(service)


def test_a_taken_port_is_not_used() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert services.free_port(port) != port


def test_a_service_that_ends_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    from tasks.errors import NightStopped

    command = [sys.executable, "-c", "print('the reason', flush=True); raise SystemExit(1)"]
    service = services.start_service("broken", command, dict(os.environ), tmp_path)
    with pytest.raises(NightStopped, match=r"(?s)broken ended with exit code 1 before it answered.*the reason"):
        services.wait_until_healthy(lambda: False, service, tmp_path)


def test_a_service_that_is_killed_is_reported_with_its_signal(tmp_path: Path) -> None:
    from tasks.errors import NightStopped

    service = services.start_service("killed", ["sleep", "600"], dict(os.environ), tmp_path)
    os.kill(service.pid, signal.SIGKILL)
    with pytest.raises(NightStopped, match=r"killed ended by signal SIGKILL before it answered.*log, which is empty"):
        services.wait_until_healthy(lambda: False, service, tmp_path)
