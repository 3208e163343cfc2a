"""The states that Prefect shows of runs that end otherwise than well, and who is told."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from prefect import Flow, flow, get_client, task
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.states import Completed, Pending, Running, Scheduled

from flows import find_lr, prepare_data, promote_model, retrain_nightly, sweep, train_twin
from tasks.errors import Diverged, Interrupted, NightBusy, NightStopped, StoreAway, is_passing
from tasks.home.stage_table import STAGES
from tasks.services import endings
from tasks.services.endings import ON_FAILURE, ON_REFUSAL, may_help, note_run, tell_failure
from tasks.stage import declared
from tests.listener import listening

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    with listening() as listener:
        monkeypatch.setenv("NIGHTSCHOOL_NOTIFY", listener.address)
        yield listener.told


def state_of(run_id: UUID) -> State[Any]:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run_id).state


def stages_of(run_id: UUID) -> list[State[Any]]:
    with get_client(sync_client=True) as client:
        return [stage.state for stage in endings.stages(client, run_id)]


def raising(error: BaseException, **options: Any) -> tuple[Flow[Any, Any], list[UUID]]:
    """A flow of ours whose stage ends in an error, and the ids of its runs."""
    ids: list[UUID] = []

    @task(name="validate", on_failure=[tell_failure])
    def failing() -> None:
        raise error

    @flow(name="night", on_failure=ON_FAILURE, **options)
    def night() -> None:
        ids.append(FlowRunContext.get().flow_run.id)
        failing()

    return night, ids


@pytest.mark.parametrize("error", [NightBusy("another night is running"), Interrupted("stopped at step 7")])
def test_a_run_that_did_not_fail_is_cancelled_with_one_sentence(error: Exception, told: list[Any]) -> None:
    night, ids = raising(error)
    with pytest.raises(type(error)):
        night()
    state = state_of(ids[0])
    assert (state.type.value, state.message) == ("CANCELLED", str(error))
    assert [(stage.type.value, stage.message) for stage in stages_of(ids[0])] == [("CANCELLED", str(error))]
    assert told == []


def test_what_is_refused_by_hand_is_cancelled_and_told_nobody(told: list[Any]) -> None:
    ids: list[UUID] = []

    @flow(name="promote", on_failure=ON_REFUSAL)
    def promote(error: Exception) -> None:
        ids.append(FlowRunContext.get().flow_run.id)
        raise error

    for error, ends in ((NightStopped("there is no version 7"), "CANCELLED"), (KeyError("x"), "FAILED")):
        with pytest.raises(type(error)):
            promote(error)
        assert state_of(ids[-1]).type.value == ends
    assert state_of(ids[0]).message == "there is no version 7"
    assert told == []


REASON = "the reason"
KINDS = ((NightStopped(REASON), "stopped"), (Diverged(REASON), "diverged"), (OSError(REASON), "failed"))


@pytest.mark.parametrize(("error", "kind"), KINDS)
def test_a_failure_is_an_event_of_its_kind_and_recipe(
    error: Exception, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices: list[Any] = []
    monkeypatch.setattr(endings, "tell", notices.append)

    @flow(name="night", on_failure=ON_FAILURE)
    def night(recipe: dict[str, str]) -> None:
        raise error

    with pytest.raises(type(error)):
        night({"name": "tiny"})
    assert [(notice.kind, notice.recipe, notice.text) for notice in notices] == [(kind, "tiny", REASON)]


@pytest.mark.parametrize("error", [NightStopped("row 7"), Diverged("loss is nan"), OSError("disk"), KeyError("x")])
def test_a_failure_is_told_once(error: Exception, told: list[dict[str, Any]]) -> None:
    night, ids = raising(error)
    with pytest.raises(type(error)):
        night()
    assert state_of(ids[0]).type.value == "FAILED"
    [notice] = told
    assert notice["title"] == "validate: Failed", "the stage, not the night again"
    assert str(error) in notice["message"]


def test_a_time_out_is_told_with_its_reason(told: list[dict[str, Any]]) -> None:
    @task(name="tokens", timeout_seconds=0.05, on_failure=[tell_failure])
    def slow() -> None:
        while True:
            pass

    @flow(name="night", on_failure=ON_FAILURE)
    def night() -> None:
        slow()

    with pytest.raises(TimeoutError):
        night()
    assert told[0]["title"] == "tokens: TimedOut"


def test_a_notice_that_cannot_be_sent_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NIGHTSCHOOL_NOTIFY", "json://127.0.0.1:9")
    night, _ = raising(NightStopped("the reason"))
    with pytest.raises(NightStopped, match="the reason"):
        night()
    assert "could not be told to all of NIGHTSCHOOL_NOTIFY" in caplog.text


FLOWS = (
    retrain_nightly.retrain_nightly, find_lr.search_lr, sweep.sweep_settings, prepare_data.prepare_data,
    train_twin.train_twin, promote_model.promote_model,
)  # fmt: skip


def test_every_flow_ends_truly_and_tells() -> None:
    for ours in FLOWS:
        assert ours.on_failure_hooks == (ON_REFUSAL if ours.name == "promote-model" else ON_FAILURE), ours.name


@pytest.mark.parametrize("entry", STAGES, ids=lambda entry: entry.name)
def test_every_stage_retries_and_tells_and_ends_in_time(entry: Any) -> None:
    ours = declared(entry)
    assert (ours.retries, ours.retry_condition_fn, ours.on_failure_hooks) == (2, may_help, [tell_failure])
    assert ours.timeout_seconds == (None if entry.kind else 24 * 3600)


PASS = [
    TimeoutError("slow"),
    ConnectionResetError(104, "reset"),
    OSError(errno.EIO, "input"),
    OSError(errno.ESTALE, "nfs"),
]
STAY = [
    NightStopped("bad data"), Diverged("nan"), NightBusy("busy"), Interrupted("asked"), StoreAway("away"),
    FileNotFoundError(2, "gone"), PermissionError(13, "no"), OSError(errno.ENOSPC, "full"), ValueError("bug"), None,
]  # fmt: skip


@pytest.mark.parametrize(("error", "passes"), [*((e, True) for e in PASS), *((e, False) for e in STAY)])
def test_only_faults_that_pass_are_tried_again(error: Exception | None, passes: bool) -> None:
    assert is_passing(error) == passes


def left_behind(home: Path, note: Callable[[UUID], dict[str, Any]], state: State[Any]) -> tuple[UUID, UUID]:
    """A night with a subflow that has a stage, all in a state, and its note, as a kill leaves them."""
    ids: list[UUID] = []

    @task(name="validate")
    def validate() -> None:
        pass

    @flow(name="part")
    def part() -> None:
        ids.append(FlowRunContext.get().flow_run.id)
        validate()

    @flow(name="night")
    def night() -> None:
        ids.append(FlowRunContext.get().flow_run.id)
        part()

    night()
    with get_client(sync_client=True) as client:
        for run_id in ids:
            client.set_flow_run_state(run_id, state, force=True)
            for stage in endings.stages(client, run_id):
                client.set_task_run_state(stage.id, state, force=True)
    endings.write_json(endings.notes(home) / f"{ids[0]}.json", note(ids[0]))
    return ids[0], ids[1]


def dead(_: UUID) -> dict[str, Any]:
    return {"name": "gone", "pid": psutil.Process().pid, "started": 1.0}


def alive(_: UUID) -> dict[str, Any]:
    return {"name": "here", "pid": psutil.Process().pid, "started": psutil.Process().create_time()}


def test_runs_whose_process_is_gone_are_crashed(home: Path) -> None:
    ids = left_behind(home, dead, Running())
    note_run(home)
    for run_id in ids:
        state = state_of(run_id)
        assert state.type.value == "CRASHED"
        assert "ended without a word" in state.message
    assert [stage.type.value for stage in stages_of(ids[1])] == ["CRASHED"]
    assert list(endings.notes(home).iterdir()) == []


def deployed(home: Path, state: State[Any]) -> UUID:
    """A run of a deployment in a state, as a worker that began it leaves it."""

    @flow(name="night")
    def night() -> None:
        pass

    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(flow_id=client.create_flow(night), name=f"tiny-{uuid4()}")
        run = client.create_flow_run_from_deployment(deployment)
        client.set_flow_run_state(run.id, state, force=True)
    return UUID(str(run.id))


def test_runs_that_a_worker_began_and_nothing_carries_on_are_crashed(home: Path) -> None:
    begun = [deployed(home, state) for state in (Pending(), Running())]
    carried_on, waiting, by_hand = (
        deployed(home, Running()),
        deployed(home, Scheduled()),
        left_behind(home, dead, Running())[0],
    )
    endings.write_json(endings.notes(home) / f"{carried_on}.json", alive(carried_on))
    with get_client(sync_client=True) as client:
        closed = endings.close_runs_without_worker(home, str(client.api_url))
        names = [client.read_flow_run(run_id).name for run_id in (*begun, carried_on, waiting, by_hand)]
    assert [name in closed for name in names] == [True, True, False, False, False]
    assert [state_of(run_id).type.value for run_id in begun] == ["CRASHED"] * 2
    assert "start it again" in state_of(begun[0]).message
    kept = [state_of(run_id).type.value for run_id in (carried_on, waiting, by_hand)]
    assert kept == ["RUNNING", "SCHEDULED", "RUNNING"]
    with get_client(sync_client=True) as client:
        for run_id in (carried_on, waiting, by_hand):
            client.delete_flow_run(run_id)


def test_a_note_outlives_its_night_and_the_next_one_looks_after_it(home: Path) -> None:
    @flow(name="night")
    def night() -> None:
        note_run(home)

    night()
    [(_, service, on_worker)] = endings.noted_processes(home)
    assert (service.pid, on_worker) == (psutil.Process().pid, False)
    assert endings.close_dead_runs(home) == 0, "the process lives"


@pytest.mark.parametrize(("note", "state"), [(alive, Running()), (dead, Completed())])
def test_no_other_run_is_touched(home: Path, note: Callable[[UUID], dict[str, Any]], state: State[Any]) -> None:
    ids = left_behind(home, note, state)
    assert endings.close_dead_runs(home) == 0
    assert {state_of(run_id).type for run_id in ids} == {state.type}


def test_a_run_of_another_server_is_forgotten(home: Path) -> None:
    endings.write_json(endings.notes(home) / f"{UUID(int=7)}.json", dead(UUID(int=7)))
    assert endings.close_dead_runs(home) == 0
    assert list(endings.notes(home).iterdir()) == []


def test_subflows_of_a_night_that_is_stopped_are_cancelled(home: Path) -> None:
    ids: list[UUID] = []

    @flow(name="part")
    def part() -> None:
        ids.append(FlowRunContext.get().flow_run.id)
        raise Interrupted("asked to stop")

    @flow(name="night", on_failure=ON_FAILURE)
    def night() -> None:
        note_run(home)
        assert [path.stem for path in endings.notes(home).iterdir()] == [str(FlowRunContext.get().flow_run.id)]
        try:
            part()
        finally:
            endings.cancel_subflows()

    with pytest.raises(Interrupted):
        night()
    assert state_of(ids[0]).type.value == "CANCELLED"
    assert not issubclass(TerminationSignal, Exception), "what Prefect raises for a cancellation passes by `except`"
