"""The automations of `make up`: who is told of what by Prefect's server, and which dead runs it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import AutomationSort
from prefect.events.actions import ActionTypes, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from pydantic import SecretStr

from tasks.errors import NightStopped
from tasks.recipes.alarm_config import AlarmConfig
from tasks.services.deployments import FLOW, ask, fires
from tasks.services.notices import ALARM, KINDS, NIGHT, Notice, automation_name, report, resource_of, send
from tasks.settings import notify_urls

OURS = "nightschool: "
"""What names of our automations begin with; those of a user are left alone."""
BLOCK, BLOCK_TYPE = "nightschool-notify", "slack-webhook"
"""Of the built-in blocks, which the server can load by itself, this one hands any address on to Apprise as it is."""
FINISHED = ("promoted", "kept", "waits", "refused", "skipped")
"""How a night that came to its end may have ended."""
MISSED_HEARTBEATS = 3
PENDING_SECONDS = 600
"""How long a worker may take from a run's order to its first sign of life; it takes seconds."""
PAGE = 200
"""Automations that the server gives at a time."""
FIRES_LOOKED_AT = 100
SINCE = datetime(2024, 1, 1, tzinfo=UTC)
"""From which fires of a schedule are looked at, so that its period is the same whenever it is asked for."""
EXECUTED, FAILED = "prefect.automation.action.executed", "prefect.automation.action.failed"
TRIAL_SECONDS, POLL_SECONDS = 60, 0.5
ENDED = ["Completed", "Failed", "TimedOut", "Cancelled", "Crashed", "Skipped"]
WAITS = ["Scheduled", "AwaitingRetry", "AwaitingConcurrencySlot", "Late", "Paused", "Suspended", "Cancelling"]


@dataclass(frozen=True)
class Synced:
    """What was changed on the server, by name."""

    made: list[str]
    changed: list[str]
    removed: list[str]


def sync(url: str) -> Synced:
    """Have the server at `url` hold the automations that settings and armed schedules ask for, and no other of ours.

    One that is as it should be is not touched: its window goes on. One that a person switched off stays so.
    Raises NightStopped if the server does not answer.
    """
    deployments = ask(url, "deployments/filter", "POST", {"flows": {"name": {"any_": [FLOW]}}})
    with SyncPrefectClient(f"{url}/api") as client:
        found = {automation.name: automation for automation in ours(client)}
        block = save_block(url)
        wanted = {core.name: core for core in dead_run_automations()}
        if block:
            wanted |= {core.name: core for core in alarm_automations(block, windows(deployments))}
        changes = Synced([], [], [])
        for name, core in wanted.items():
            if name not in found:
                client.create_automation(core)
                changes.made.append(name)
            elif (as_it_is := core.model_copy(update={"enabled": found[name].enabled})) != same_class(found[name]):
                client.update_automation(found[name].id, as_it_is)
                changes.changed.append(name)
        for name in sorted(set(found) - set(wanted)):
            client.delete_automation(found[name].id)
            changes.removed.append(name)
        if not block:
            remove_block(client)
    return changes


def ours(client: SyncPrefectClient) -> Iterator[Automation]:
    """Our automations on the server, however many a user has beside."""
    offset = 0
    while page := client.read_automations(sort=AutomationSort.NAME_ASC, limit=PAGE, offset=offset):
        yield from (automation for automation in page if automation.name.startswith(OURS))
        offset += len(page)


def same_class(automation: AutomationCore) -> AutomationCore:
    """What the server has, without what it adds."""
    return AutomationCore.model_validate(automation.model_dump(exclude={"id"}))


def save_block(url: str) -> str:
    """Keep the addresses of NIGHTSCHOOL_NOTIFY on the server, as a secret; the block's id, empty if none is set."""
    urls = notify_urls()
    if not urls:
        return ""
    with temporary_settings({PREFECT_API_URL: f"{url}/api"}):
        return str(SlackWebhook(url=SecretStr(urls)).save(BLOCK, overwrite=True))


def remove_block(client: SyncPrefectClient) -> None:
    try:
        document = client.read_block_document_by_name(BLOCK, BLOCK_TYPE, include_secrets=False)
    except ObjectNotFound:
        return
    client.delete_block_document(document.id)


def windows(deployments: list[dict[str, Any]]) -> dict[str, timedelta]:
    """Of each recipe with an armed schedule, how long nothing may have finished before that is an alarm."""
    found = {}
    for deployment in deployments:
        armed = [schedule["schedule"] for schedule in deployment["schedules"] if schedule["active"]]
        if armed:
            alarms = (deployment["parameters"].get("recipe") or {}).get("alarms") or {}
            periods = alarms.get("silent_periods", AlarmConfig().silent_periods)
            found[str(deployment["name"])] = min(map(longest_gap, armed)) * periods
    return found


def longest_gap(schedule: Mapping[str, Any]) -> timedelta:
    """The longest time between two fires of a schedule, as the server has it: over a weekend, or a clock change."""
    times = fires(schedule, FIRES_LOOKED_AT, SINCE) or fires(schedule, FIRES_LOOKED_AT)
    return max((later - earlier for earlier, later in pairwise(times)), default=timedelta(days=1))


def alarm_automations(block: str, silent: Mapping[str, timedelta]) -> list[AutomationCore]:
    """Those that tell the addresses of a block, one for each kind of alarm and each recipe that may fall silent."""

    def telling(name: str, trigger: EventTrigger, subject: str, body: str) -> AutomationCore:
        actions: list[ActionTypes] = [SendNotification(block_document_id=block, subject=subject, body=body)]
        return AutomationCore(name=name, description="Made by make up.", trigger=trigger, actions=actions)

    told = [
        telling(
            automation_name(kind), EventTrigger(expect={f"{ALARM}{kind}"}, posture=Posture.Reactive),
            "{{ event.payload.title }}", "{{ event.payload.text }}",
        )
        for kind in KINDS
    ]  # fmt: skip
    crashed = EventTrigger(
        expect={"prefect.flow-run.Crashed"}, match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.role": "flow", "prefect.resource.name": FLOW}, posture=Posture.Reactive,
    )  # fmt: skip
    told.append(
        telling(
            f"{OURS}a night crashed", crashed, "{{ event.resource['prefect.resource.name'] }}: Crashed",
            "{{ event.resource['prefect.state-message'] }}",
        )
    )  # fmt: skip
    for recipe, window in sorted(silent.items()):
        nothing = EventTrigger(
            expect={f"{NIGHT}{ending}" for ending in FINISHED}, match={"prefect.resource.id": resource_of(recipe)},
            posture=Posture.Proactive, within=window,
        )  # fmt: skip
        told.append(
            telling(
                f"{OURS}no night of {recipe} finished", nothing, f"{recipe}: no night finished",
                f"No night of {recipe} finished within {window}: see the runs in Prefect, and whether worker and "
                f"schedule are on (make up). make disarm RECIPE={recipe} turns schedule and alarm off.",
            )
        )  # fmt: skip
    return told


def dead_run_automations() -> list[AutomationCore]:
    """Those that mark runs as crashed whose process says nothing any more, which frees what they hold."""
    beat = get_current_settings().flows.heartbeat_frequency or 180
    quiet = MISSED_HEARTBEATS * beat
    heartbeat = "prefect.flow-run.heartbeat"

    def ending(name: str, after: set[str], expect: list[str], seconds: float, message: str) -> AutomationCore:
        trigger = EventTrigger(
            after=after, expect=set(expect), match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"}, posture=Posture.Proactive, within=timedelta(seconds=seconds),
        )  # fmt: skip
        action = ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message)
        return AutomationCore(name=name, description="Made by make up.", trigger=trigger, actions=[action])

    def states(*groups: list[str]) -> list[str]:
        return [f"prefect.flow-run.{state}" for group in groups for state in group]

    sign_of_life = [heartbeat, *states(ENDED, WAITS, ["Pending"])]
    return [
        ending(
            f"{OURS}end runs without a heartbeat", {heartbeat, "prefect.flow-run.Running"}, sign_of_life, quiet,
            f"no sign of life for {quiet} s, three times the heartbeat; the next run goes on from what is finished",
        ),
        ending(
            f"{OURS}end runs that never began", {"prefect.flow-run.Pending"}, states(ENDED, WAITS, ["Running"]),
            PENDING_SECONDS,
            f"it was ordered and did not begin within {PENDING_SECONDS} s; see the worker's log, and start it again",
        ),
    ]  # fmt: skip


def try_alarms(url: str) -> list[str]:
    """Send a notice the way an alarm goes: by the server at `url`, or from this process where there is none.

    Returns what happened, in sentences. Raises NightStopped if nobody is to be told, or if somebody was not.
    """
    if not notify_urls():
        raise NightStopped(
            "NIGHTSCHOOL_NOTIFY is not set, so nobody is told of anything; give addresses of Apprise, with commas "
            "between, such as mailto://… or json://HOST/PATH, and for the services: make down, make up"
        )
    trial = Notice(kind="test", recipe="", title="Nightschool: a trial of the alarms", text="Alarms arrive here.")
    if not url:
        if not send(trial):
            raise NightStopped("not every address of NIGHTSCHOOL_NOTIFY took the notice, which was sent from here")
        return ["every address of NIGHTSCHOOL_NOTIFY took the notice, which was sent from here, as no services run"]
    with SyncPrefectClient(f"{url}/api") as client:
        found = client.read_automations_by_name(automation_name("test"))
    if not found:
        raise NightStopped(f"Prefect's server at {url} has no alarms, as NIGHTSCHOOL_NOTIFY was not set then: make up")
    since = datetime.now(UTC)
    with temporary_settings({PREFECT_API_URL: f"{url}/api"}):
        if not report(f"{ALARM}{trial.kind}", "", {"title": trial.title, "text": trial.text}):
            raise NightStopped(f"Prefect's server at {url} did not take the event of the trial; see `make up`")
    name, reason = action_result(url, found[0].id, since)
    if name != EXECUTED:
        raise NightStopped(f"Prefect's automation {found[0].name!r} did not send the notice: {reason}")
    return [f"Prefect's automation {found[0].name!r} sent the notice, and every address of NIGHTSCHOOL_NOTIFY took it"]


def action_result(url: str, automation: UUID, since: datetime) -> tuple[str, str]:
    """The event of what an automation did after a time, and the reason it gives."""
    wanted = {
        "filter": {
            "occurred": {"since": since.isoformat()},
            "event": {"name": [EXECUTED, FAILED]},
            "resource": {"id": [f"prefect.automation.{automation}"]},
        }
    }
    deadline = time.monotonic() + TRIAL_SECONDS
    while time.monotonic() < deadline:
        if events := ask(url, "events/filter", "POST", wanted)["events"]:
            return events[0]["event"], str(events[0]["payload"].get("reason", "no reason was given"))
        time.sleep(POLL_SECONDS)
    return "", f"it did nothing within {TRIAL_SECONDS} s; is it switched off in Prefect?"
