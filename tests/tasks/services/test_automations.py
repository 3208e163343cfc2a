"""Automations on a real Prefect server: made once, changed where they must be, and doing what they are for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import AutomationCore, EventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from tasks.errors import NightStopped
from tasks.services import automations, notices
from tasks.services.automations import FINISHED, OURS, alarm_automations, longest_gap, save_block, sync, try_alarms
from tasks.services.deployments import FLOW, ask, fires
from tasks.services.notices import KINDS, NIGHT, Notice, report, tell
from tests.listener import Listener, listening
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def url(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server, as `make up` would have started it; our automations are gone at the end."""
    address = str(PREFECT_API_URL.value()).removesuffix("/api")
    monkeypatch.setattr(notices, "running_url", lambda _: address)
    yield address
    monkeypatch.delenv("NIGHTSCHOOL_NOTIFY", raising=False)
    with get_client(sync_client=True) as client:
        for automation in client.read_automations(limit=200):
            client.delete_automation(automation.id)


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    with listening() as server:
        monkeypatch.setenv("NIGHTSCHOOL_NOTIFY", server.address)
        yield server


def names() -> list[str]:
    with get_client(sync_client=True) as client:
        return sorted(automation.name for automation in client.read_automations(limit=200))


def deployed(name: str, cron: str, active: bool = True) -> dict[str, Any]:
    """A deployment of a night with a schedule."""

    @flow(name=FLOW)
    def night(recipe: dict[str, Any]) -> None: ...

    with get_client(sync_client=True) as client:
        made = DeploymentScheduleCreate(schedule=CronSchedule(cron=cron, timezone="UTC"), active=active)
        client.create_deployment(
            flow_id=client.create_flow(night), name=name, schedules=[made], parameters={"recipe": {"name": name}}
        )
    return dict(ask(str(PREFECT_API_URL.value()).removesuffix("/api"), f"deployments/name/{FLOW}/{name}"))


ALWAYS = [f"{OURS}end runs that never began", f"{OURS}end runs without a heartbeat"]


def test_they_are_made_once_and_go_with_the_setting(
    url: str, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    with get_client(sync_client=True) as client:
        own = AutomationCore(name="a user's", trigger=EventTrigger(expect={"x"}), actions=[DoNothing()])
        client.create_automation(own)
    made = sync(url)
    assert len(made.made) == len(KINDS) + 1 + len(ALWAYS)
    monkeypatch.setattr(automations, "PAGE", 3)  # a user may have more than the server gives at a time
    assert sync(url) == automations.Synced([], [], []), "their windows go on"
    with get_client(sync_client=True) as client:
        [gate] = client.read_automations_by_name(f"{OURS}the gate cannot pass")
        client.pause_automation(gate.id)
    assert sync(url) == automations.Synced([], [], []), "a person switched it off"
    monkeypatch.setenv("NIGHTSCHOOL_NOTIFY", f"{listener.address}/other")
    assert sync(url) == automations.Synced([], [], []), "the block's address alone is another"
    monkeypatch.delenv("NIGHTSCHOOL_NOTIFY")
    assert len(sync(url).removed) == len(KINDS) + 1
    assert names() == ["a user's", *ALWAYS]
    with get_client(sync_client=True) as client, pytest.raises(ObjectNotFound):
        client.read_block_document_by_name(automations.BLOCK, automations.BLOCK_TYPE)


def test_an_armed_schedule_has_an_alarm_of_its_own_until_it_is_paused(url: str, listener: Listener) -> None:
    recipe = f"nightly-{uuid4()}"
    deployment = deployed(recipe, "30 1 * * *")
    name = f"{OURS}no night of {recipe} finished"
    assert name in sync(url).made
    with get_client(sync_client=True) as client:
        [silent] = client.read_automations_by_name(name)
    assert silent.trigger.within == timedelta(days=2)
    [schedule] = deployment["schedules"]
    ask(url, f"deployments/{deployment['id']}/schedules/{schedule['id']}", "PATCH", {"active": False})
    assert sync(url).removed == [name]


def test_a_notice_is_told_once_by_the_automation_and_not_from_here(
    url: str, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(url)
    monkeypatch.setattr(notices, "send", lambda _: pytest.fail("sent from here as well"))
    tell(Notice(kind="went-back", recipe="tiny", title="Night tiny: the trunk went back", text="clearly worse"))
    assert listener.arrived.wait(120)
    assert [(told["title"], told["message"]) for told in listener.told] == [
        ("Night tiny: the trunk went back", "clearly worse")
    ]


def test_a_trial_says_whether_the_notice_arrived(url: str, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NightStopped, match="has no alarms, as NIGHTSCHOOL_NOTIFY was not set then: make up"):
        try_alarms(url)
    sync(url)
    assert "every address of NIGHTSCHOOL_NOTIFY took it" in try_alarms(url)[0]
    assert len(listener.told) == 1
    listener.behaviour = "fails"
    with pytest.raises(NightStopped, match="did not send the notice: Notification failed"):
        try_alarms(url)
    with pytest.raises(NightStopped, match="not every address"):
        try_alarms("")
    listener.behaviour = "takes"
    assert "sent from here" in try_alarms("")[0]
    monkeypatch.delenv("NIGHTSCHOOL_NOTIFY")
    with pytest.raises(NightStopped, match="NIGHTSCHOOL_NOTIFY is not set"):
        try_alarms(url)


def test_silence_is_told_by_the_server_alone_and_any_end_of_a_night_breaks_it(url: str, listener: Listener) -> None:
    """Two recipes with a window of seconds: nights of the one are skipped again and again, the other is silent."""
    window = timedelta(seconds=10)
    made = alarm_automations(save_block(url), {"alive": window, "silent": window})
    with get_client(sync_client=True) as client:
        for core in made:
            if "finished" in core.name:
                client.create_automation(core)

    def silent_is_told() -> bool:
        report(f"{NIGHT}skipped", "alive", {"reason": "nothing is new"})
        return bool(listener.told)

    wait_until(silent_is_told)
    assert {told["title"] for told in listener.told} == {"silent: no night finished"}
    assert "within 0:00:10" in listener.told[0]["message"]


def test_every_end_that_a_night_can_come_to_breaks_the_silence() -> None:
    [core] = [core for core in alarm_automations(str(uuid4()), {"tiny": timedelta(days=2)}) if "finished" in core.name]
    assert core.trigger.expect == {f"{NIGHT}{ending}" for ending in FINISHED}
    assert core.trigger.match.root == {"prefect.resource.id": "nightschool.recipe.tiny"}


@pytest.mark.parametrize(
    ("schedule", "hours"),
    [
        ({"cron": "30 1 * * *", "timezone": "UTC"}, 24),
        ({"cron": "30 1 * * 1-5", "timezone": "UTC"}, 72),
        ({"cron": "30 4 * * *", "timezone": "Europe/Berlin"}, 25),
        ({"interval": 3_600.0, "anchor_date": "2020-01-01T00:00:00Z"}, 1),
    ],
)
def test_the_longest_gap_of_a_schedule_counts(schedule: dict[str, Any], hours: int) -> None:
    assert longest_gap(schedule) <= timedelta(hours=hours)
    assert longest_gap(schedule) >= timedelta(hours=hours - 1)
    assert len(fires(schedule, 3)) == 3
