"""What a person should hear of: told by Prefect's automations where `make up` made them, else sent from here.

A notice is an event on Prefect's server in any case. Nothing here raises, and each of the three steps of telling (to
the server, whether it tells, from here) ends after TELL_SECONDS: a notifier that fails must not fail a good night.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import apprise
from prefect import get_client
from prefect.context import FlowRunContext
from prefect.events import Event
from prefect.settings import PREFECT_API_URL

from tasks.errors import MESSAGE_LIMIT, NightStopped
from tasks.services.processes import running_url
from tasks.settings import notify_urls

ALARM, NIGHT = "nightschool.alarm.", "nightschool.night."
"""What names of events begin with: of a notice, its kind follows; of a night's end, how it ended."""
KINDS: Mapping[str, str] = {
    "failed": "a run failed",
    "diverged": "a training diverged",
    "stopped": "a run stopped for a reason in data, recipe or disk",
    "refused": "a limit refused a model",
    "disk": "the disk will not last",
    "gate": "the gate cannot pass",
    "went-back": "the trunk went back",
    "test": "a trial of the alarms",
}
"""Of notices, and what each says; there is an automation for each."""
TELL_SECONDS = 30.0
"""Of each step."""
log = logging.getLogger("nightschool")


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One thing that a person should hear of."""

    kind: str
    """One of KINDS."""
    recipe: str
    """Empty where it is of none."""
    title: str
    text: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no notice is of kind {self.kind!r}; there are {', '.join(KINDS)}")


def automation_name(kind: str) -> str:
    """What the automation that tells notices of this kind is called."""
    return f"nightschool: {KINDS[kind]}"


def tell(notice: Notice) -> None:
    """Have a notice told to NIGHTSCHOOL_NOTIFY, once, if that is set; if it cannot be, say so in the log."""
    payload = {"title": notice.title[:MESSAGE_LIMIT], "text": notice.text[:MESSAGE_LIMIT]}
    reported = report(f"{ALARM}{notice.kind}", notice.recipe, payload)
    if not notify_urls() or (reported and in_time(lambda: automation_tells(notice.kind))):
        return
    if not in_time(lambda: send(notice)):
        log.warning("%r could not be told to all of NIGHTSCHOOL_NOTIFY: %s", notice.title, notice.text)


def send(notice: Notice) -> bool:
    """Send a notice from this process. Returns whether every address of NIGHTSCHOOL_NOTIFY took it."""
    notifier = apprise.Apprise()
    return bool(notifier.add(notify_urls()) and notifier.notify(title=notice.title, body=notice.text))


def report(event: str, recipe: str, payload: Mapping[str, Any]) -> bool:
    """Put an event of a recipe on the Prefect server that this process reports to. Returns whether it was taken.

    payload: plain values, without secrets; it is shown in Prefect.
    """
    return bool(PREFECT_API_URL.value()) and in_time(lambda: _report(event, recipe, payload))


def _report(event: str, recipe: str, payload: Mapping[str, Any]) -> bool:
    run = context.flow_run if (context := FlowRunContext.get()) else None
    of_run = {"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.role": "flow-run"} if run else {}
    told = Event(
        event=event,
        resource={"prefect.resource.id": resource_of(recipe), "prefect.resource.name": recipe or "nightschool"},
        related=[of_run] if of_run else [],
        payload=dict(payload),
    )  # fmt: skip
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[told.model_dump(mode="json")]).raise_for_status()
    return True


def resource_of(recipe: str) -> str:
    """How events call a recipe, or the home where they are of none."""
    return f"nightschool.recipe.{recipe}" if recipe else "nightschool.home"


def automation_tells(kind: str) -> bool:
    """Whether the server of `make up`, which outlives this process, has an automation for notices of a kind."""
    url = running_url("prefect")
    if not url or PREFECT_API_URL.value() != f"{url}/api":
        return False
    with get_client(sync_client=True) as client:
        return bool(client.read_automations_by_name(automation_name(kind)))


def in_time(work: Callable[[], bool]) -> bool:
    """The answer of what may hang or fail; False, with a word in the log, if it does."""
    answers: list[bool] = []
    problems: list[str] = [f"no answer within {TELL_SECONDS:.0f} s"]

    def attempt() -> None:
        try:
            answers.append(work())
        except NightStopped as stop:
            problems.insert(0, str(stop))
        except Exception as error:  # of a client's, of any kind
            problems.insert(0, type(error).__name__)  # its words may hold an address with its password

    # with Prefect's settings and flow run, which belong to the thread that calls
    thread = threading.Thread(target=copy_context().run, args=(attempt,), daemon=True)
    thread.start()
    thread.join(TELL_SECONDS)
    if not answers:
        log.warning("a notice was not passed on: %s", problems[0])
    return bool(answers and answers[0])
