"""The deployments of `make up`: those of prefect.yaml and of the home's own recipes, and whose schedules are armed."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import yaml
from pydantic import ValidationError

from model.files import write_text
from tasks.errors import NightStopped
from tasks.recipes.deployments import DEPLOYMENTS, ENTRYPOINT, load_recipe_file
from tasks.recipes.recipe_files import RecipeFile, files_in
from tasks.services.processes import running_url
from tasks.settings import PROJECT, Settings

POOL = "nightschool"
FLOW = "retrain-nightly"
ANSWER_SECONDS = 30
Schedules = dict[str, list[dict[str, Any]]]
"""By the name of a deployment, as Prefect's server has them."""


def own_recipes(home: Path) -> list[RecipeFile]:
    """Files of the home's `recipes`. Raises NightStopped if one of them, or its schedule, is not valid."""
    files = [load_recipe_file(path)[0] for path in files_in(home)]
    for file in files:
        for schedule in file.schedules:
            try:
                next_run(schedule)
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise NightStopped(f"{file.path}: schedules: {schedule} is none: {reason}") from None
    return files


def fires(schedule: Mapping[str, Any], count: int, start: datetime | None = None) -> list[datetime]:
    """The next times, `count` at most, at which a schedule fires from a start on, or from now.

    Raises ValidationError if it is none.
    """
    from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

    kinds = {"cron": CronSchedule, "interval": IntervalSchedule, "rrule": RRuleSchedule}
    kind = next(kind for name, kind in kinds.items() if name in schedule)
    made = kind(**{key: value for key, value in schedule.items() if key != "slug"})
    return list(asyncio.run(made.get_dates(count, start)))


def next_run(schedule: Mapping[str, Any]) -> str:
    """When a schedule fires next, as `2026-11-30 01:30 UTC`. Raises ValidationError if it is none."""
    dates = fires(schedule, 1)
    return f"{dates[0]:%Y-%m-%d %H:%M} {schedule.get('timezone') or 'UTC'}" if dates else "never"


def all_deployments(own: list[RecipeFile], server: Schedules) -> dict[str, Any]:
    """What `prefect deploy` is to read. A schedule is armed if it is on the server already, and paused if it is new."""
    content = yaml.safe_load(DEPLOYMENTS.read_text(encoding="utf-8"))
    known = {deployment["name"] for deployment in content["deployments"]}
    content["deployments"] += [as_deployment(file) for file in own if file.name not in known]
    for deployment in content["deployments"]:
        armed = {key_of(schedule) for schedule in server.get(deployment["name"], []) if schedule["active"]}
        deployment["schedules"] = [s | {"active": key_of(s) in armed} for s in deployment.get("schedules") or []]
    return dict(content)


def as_deployment(file: RecipeFile) -> dict[str, Any]:
    return {
        "name": file.name, "description": file.description or f"The recipe of {file.path}.", "entrypoint": ENTRYPOINT,
        "work_pool": {"name": POOL, "work_queue_name": "default"}, "tags": ["nightschool"],
        "schedules": [{"slug": f"{file.name}-{n}", **schedule} for n, schedule in enumerate(file.schedules, start=1)],
        "parameters": {"recipe": file.content},
    }  # fmt: skip


def key_of(schedule: dict[str, Any]) -> str:
    """By what a schedule of a deployment is found again."""
    return str(schedule.get("slug") or schedule.get("cron") or (schedule.get("schedule") or {}).get("cron"))


def register(prefect: str, environment: dict[str, str], home: Path, own: list[RecipeFile], url: str) -> None:
    """Create or update the work pool and every deployment. Raises NightStopped if Prefect refuses."""
    file = home / "services" / "prefect.yaml"
    write_text(file, yaml.safe_dump(all_deployments(own, on_server(url)), sort_keys=False, allow_unicode=True))
    for command in (
        [prefect, "--no-prompt", "work-pool", "create", POOL, "--type", "process", "--overwrite"],
        [prefect, "--no-prompt", "deploy", "--all", "--prefect-file", str(file)],
    ):
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NightStopped(f"{' '.join(command[1:])} failed:\n{(done.stdout + done.stderr)[-1_000:]}")


def ask(url: str, path: str, method: str = "GET", body: object = None) -> Any:
    """The answer of Prefect's server. Raises NightStopped if it gives none; None where it has nothing of that name.

    A server that is busy (429, 503) is asked again, a few times, by Prefect's client.
    """
    from prefect.client.base import (
        PrefectHttpxSyncClient,
    )  # imported, it makes the home; whether one may is asked first

    try:
        with PrefectHttpxSyncClient(base_url=f"{url}/api/", timeout=ANSWER_SECONDS) as client:
            reply = client.request(method, path, json=body)
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.NOT_FOUND:
            return None
        raise NightStopped(f"Prefect's server at {url} refused {path}: {str(error).splitlines()[0]}") from None
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise NightStopped(f"Prefect's server at {url} does not answer: {reason}; see `make up`") from None
    return reply.json() if reply.content else None


def on_server(url: str) -> Schedules:
    """The schedules of all deployments of a night."""
    wanted = {"flows": {"name": {"any_": [FLOW]}}}
    return {d["name"]: d["schedules"] for d in ask(url, "deployments/filter", "POST", wanted) or []}


def schedule_lines(url: str) -> Iterator[str]:
    """Of each deployment with a schedule, whether it is armed and when it runs next; and those that no recipe has."""
    known = {d["name"] for d in yaml.safe_load(DEPLOYMENTS.read_text(encoding="utf-8"))["deployments"]}
    known |= {path.stem for path in files_in(Settings.load().home)}
    for name, schedules in sorted(on_server(url).items()):
        for schedule in schedules:
            when = schedule["schedule"]
            says = when.get("cron") or when.get("rrule") or f"every {when.get('interval')} s"
            state = (
                f"armed, runs next {next_run(when)}; to pause it: make disarm RECIPE={name}"
                if schedule["active"]
                else f"paused; to arm it: make arm RECIPE={name}"
            )
            yield f"Schedule {name} ({says} {when.get('timezone') or 'UTC'}): {state}"
        if name not in known:
            yield f"No recipe is called {name} any more: .venv/bin/prefect deployment delete {FLOW}/{name}"


def set_armed(name: str, active: bool) -> list[str]:
    """Arm or pause the schedules of a deployment, and say what holds now.

    Raises NightStopped if no server runs for the home, or there is no such deployment or schedule.
    """
    if not (url := running_url("prefect")):
        raise NightStopped(f"no services run for {Settings.load().home}; start them first: make up")
    found = ask(url, f"deployments/name/{FLOW}/{name}")
    if found is None:
        raise NightStopped(f"no deployment {FLOW}/{name:.80}; there are {', '.join(sorted(on_server(url)))}")
    if not found["schedules"]:
        raise NightStopped(f"{FLOW}/{name} has no schedule; give its recipe `schedules`, then: make up")
    for schedule in found["schedules"]:
        ask(url, f"deployments/{found['id']}/schedules/{schedule['id']}", "PATCH", {"active": active})
    return [line for line in schedule_lines(url) if line.startswith(f"Schedule {name} (")]
