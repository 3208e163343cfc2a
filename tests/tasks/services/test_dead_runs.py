"""Runs whose process was killed, before they began and while they ran: they are ended, and what they held is free.

The deployment here has a concurrency limit, as a user may give one: the slot of a dead run is what would stop all later
ones for ever.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect import flow, get_client
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, StateType
from prefect.settings import PREFECT_API_URL
from prefect.states import Pending, Running

from tasks.services import automations
from tasks.services.endings import close_dead_runs, close_runs_without_worker, note_run
from tasks.services.processes import Service
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("prefect_server")
PROJECT = Path(__file__).resolve().parents[3]
NIGHT = """
import sys
from pathlib import Path
from prefect import flow, get_client
from prefect.flow_engine import run_flow
from prefect.states import Pending
from tasks.services.endings import note_run
from tests.waiting import wait_until
@flow(name="night")
def night():
    note_run(Path(sys.argv[1]))
    print("runs", flush=True)
    sys.stdin.readline()

with get_client(sync_client=True) as client:
    client.set_flow_run_state(sys.argv[2], Pending())
    print("begins", flush=True)
    sys.stdin.readline()
    run = client.read_flow_run(sys.argv[2])
run_flow(night, flow_run=run)
"""


class Deployed:
    """A deployment that lets one run at a time begin and cancels others."""

    def __init__(self) -> None:
        @flow(name="night")
        def night() -> None: ...

        with get_client(sync_client=True) as client:
            self.id = client.create_deployment(
                flow_id=client.create_flow(night), name=f"night-{uuid4()}", concurrency_limit=1,
                concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
            )  # fmt: skip

    def ordered(self) -> UUID:
        with get_client(sync_client=True) as client:
            return UUID(str(client.create_flow_run_from_deployment(self.id).id))

    def next_run(self) -> StateType:
        """What becomes of another run that a worker begins."""
        run = self.ordered()
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Pending())
            if state_of(run) == StateType.PENDING:
                client.set_flow_run_state(run, Running())
            return state_of(run)


def state_of(run: UUID) -> StateType:
    with get_client(sync_client=True) as client:
        return StateType(client.read_flow_run(run).state.type)


@pytest.fixture
def deployment() -> Deployed:
    return Deployed()


@pytest.fixture
def killed(home: Path, deployment: Deployed) -> Iterator[Callable[[bool], UUID]]:
    """Kill -9 a night that has begun, and runs or not; gives the id of its run."""
    children: list[subprocess.Popen[str]] = []

    def kill(runs: bool) -> UUID:
        run = deployment.ordered()
        child = subprocess.Popen(
            [sys.executable, "-c", NIGHT, str(home), str(run)], cwd=PROJECT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=automations_environment(),
        )  # fmt: skip
        children.append(child)
        assert child.stdin and child.stdout
        assert child.stdout.readline() == "begins\n"
        if runs:
            child.stdin.write("go on\n")
            child.stdin.flush()
            assert child.stdout.readline() == "runs\n"
        child.kill()
        child.wait()
        return run

    yield kill
    for child in children:
        child.communicate()


def automations_environment() -> dict[str, str]:
    from tasks.settings import child_environment

    return child_environment(PREFECT_API_URL=str(PREFECT_API_URL.value()))


def test_a_night_killed_while_it_ran_is_ended_by_the_next_one(
    home: Path, deployment: Deployed, killed: Callable[[bool], UUID]
) -> None:
    run = killed(True)
    assert (state_of(run), deployment.next_run()) == (StateType.RUNNING, StateType.CANCELLED), "it keeps its slot"
    assert close_dead_runs(home) == 1
    assert (state_of(run), deployment.next_run()) == (StateType.CRASHED, StateType.RUNNING)


def test_a_night_killed_before_it_began_is_ended_by_make_up(
    home: Path, deployment: Deployed, killed: Callable[[bool], UUID]
) -> None:
    run = killed(False)
    assert (state_of(run), deployment.next_run()) == (StateType.PENDING, StateType.CANCELLED), "it keeps its slot"
    assert close_dead_runs(home) == 0, "it never came to note itself"
    assert len(close_runs_without_worker(home, str(PREFECT_API_URL.value()))) >= 1
    assert (state_of(run), deployment.next_run()) == (StateType.CRASHED, StateType.RUNNING)


def test_a_night_killed_before_it_began_is_ended_by_one_that_begins_while_no_worker_runs(
    home: Path, deployment: Deployed, killed: Callable[[bool], UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, url = killed(False), str(PREFECT_API_URL.value()).removesuffix("/api")
    services = [Service.of("prefect", 1, url), Service.of("worker", 1)]
    monkeypatch.setattr("tasks.services.endings.read_services", lambda _: services)
    note_run(home)
    assert state_of(run) == StateType.PENDING, "its worker is the one to know"
    services.pop()
    note_run(home)
    assert (state_of(run), deployment.next_run()) == (StateType.CRASHED, StateType.RUNNING)


@pytest.mark.slow
def test_the_server_ends_both_when_nothing_else_of_ours_lives(
    home: Path, killed: Callable[[bool], UUID], deployment: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With windows of ten seconds, the shortest that Prefect takes."""
    monkeypatch.setattr(automations, "PENDING_SECONDS", 10)
    monkeypatch.setattr(automations, "MISSED_HEARTBEATS", 10 / 180)
    with get_client(sync_client=True) as client:
        made = [client.create_automation(core) for core in automations.dead_run_automations()]
    try:
        ran = killed(True)
        wait_until(lambda: state_of(ran) == StateType.CRASHED)
        began = killed(False)
        wait_until(lambda: state_of(began) == StateType.CRASHED)
        assert deployment.next_run() == StateType.RUNNING
    finally:
        with get_client(sync_client=True) as client:
            for automation in made:
                client.delete_automation(automation)


def test_the_windows_follow_the_heartbeat() -> None:
    running, pending = automations.dead_run_automations()
    assert running.trigger.within == timedelta(seconds=3 * 180)
    assert pending.trigger.within == timedelta(seconds=automations.PENDING_SECONDS)
    assert running.trigger.after & running.trigger.expect == {"prefect.flow-run.heartbeat"}
    assert "prefect.flow-run.Running" in running.trigger.after, "it may die before its first heartbeat"
