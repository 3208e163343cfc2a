"""Prefect server, worker and MLflow on loopback, started and stopped by process id (`make up`, `make down`)."""

from __future__ import annotations

import shlex
import sys
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from model.files import write_json, write_text
from tasks.errors import NightStopped
from tasks.faults import ending
from tasks.recipes.recipe_files import FOLDER
from tasks.relocation import relocate
from tasks.services.addresses import MLFLOW_PORT, PREFECT_PORT
from tasks.services.databases import MLFLOW, PREFECT, make_whole
from tasks.services.deployments import POOL, own_recipes, register, schedule_lines, set_armed
from tasks.services.mlflow_pages import nights_of
from tasks.services.processes import (
    Service,
    answers_at,
    free_port,
    read_services,
    recorded_services,
    running_url,
    services_file,
    start_service,
    stop_service,
    wait_until_healthy,
)
from tasks.settings import (
    PROJECT,
    Settings,
    child_environment,
    home_or_default,
    make_home,
    notify_urls,
    prefect_database,
    sqlite_file,
)

CLIENT_SETTINGS = PROJECT / "prefect.toml"
"""Prefect reads it in the project folder, so that `prefect deployment run …` finds the server without variables."""


def up() -> None:
    """Start what is not running, register the deployments, print the addresses."""
    make_home()
    settings = Settings.load()
    relocate(settings)
    home = settings.home
    own = own_recipes(home)  # refused before anything is started
    stop_leftovers(home)
    running = {service.name: service for service in read_services(home)}
    prefect_url, remote = address("prefect", PREFECT_PORT, home), tracking_server(settings)
    mlflow_url = remote or address("mlflow", MLFLOW_PORT, home)
    environment = environment_of(settings, prefect_url)
    prefect = str(Path(sys.executable).with_name("prefect"))
    if "prefect" not in running and prefect_database():
        make_whole(home / "prefect" / "prefect.db", PREFECT)
    if "mlflow" not in running and (file := sqlite_file(settings.tracking_uri)):
        make_whole(file, MLFLOW)

    def started(name: str, command: list[str], url: str = "") -> Service:
        """The service, started if it does not run, and on record before anything else happens."""
        if name not in running:
            print(f"starting {name}{f' at {url}' if url else ''}", flush=True)
            running[name] = start_service(name, command, environment, home, url)
            write_json(services_file(home), [asdict(service) for service in running.values()])
        return running[name]

    port = prefect_url.rpartition(":")[2]
    server = started("prefect", [prefect, "server", "start", "--host", "127.0.0.1", "--port", port], prefect_url)
    mlflow = None if remote else started("mlflow", mlflow_command(settings, mlflow_url), mlflow_url)
    wait_until_healthy(answers_at(f"{prefect_url}/api/health"), server, home)
    whose = "prefect.yaml" + (f" and {home / FOLDER}" if own else "")
    print(f"registering the recipes of {whose} as deployments", flush=True)
    register(prefect, environment, home, own, prefect_url)
    print("\n".join(sync_alarms(prefect_url)))
    if "worker" not in running:
        tell_lost_runs(home, prefect_url)
    started("worker", [prefect, "worker", "start", "--pool", POOL, "--type", "process"])
    if mlflow:
        print("waiting for MLflow to answer", flush=True)
        wait_until_healthy(answers_at(f"{mlflow_url}/health"), mlflow, home)
    if (other := served_home()) and other != home and read_services(other):
        print(f"The services of {other} run, too; the prefect command reaches those of {home} from now on.")
    write_text(CLIENT_SETTINGS, f'home = "{home / "prefect"}"\n\n[api]\nurl = "{prefect_url}/api"\n')
    print("\n".join(schedule_lines(prefect_url)))
    print(
        f"Prefect  {prefect_url}\nMLflow   {nights_of(mlflow_url)}\n"
        "Run one  .venv/bin/prefect deployment run retrain-nightly/demo --watch\n"
        "Stop     make down"
    )


def environment_of(settings: Settings, prefect_url: str) -> dict[str, str]:
    """All variables of the services."""
    return child_environment(
        NIGHTSCHOOL_HOME=str(settings.home),
        NIGHTSCHOOL_ROOT=str(PROJECT),
        MLFLOW_TRACKING_URI=settings.tracking_uri,
        MLFLOW_BACKEND_STORE_URI=settings.tracking_uri,  # of its server; an argument would show the password to all
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED="true",  # with the next one, `--watch` shows the log
        PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED="true",
        # Else a window that ends while the server is off is forgotten at its start, and its alarm with it.
        PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER="P60D",
        # In memory, leases of slots end with the server, and the slots stay taken.
        PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE="prefect.server.concurrency.lease_storage.filesystem",
        PREFECT_API_URL=f"{prefect_url}/api",
        PREFECT_HOME=str(settings.home / "prefect"),
        PYTHONPATH=str(PROJECT),
    )


def address(name: str, port: int, home: Path) -> str:
    """Where a service answers, or did before it was killed, or else is to: at its usual port, if that is free."""
    recorded = next((service for service in recorded_services(home) if service.name == name), None)
    if recorded and recorded.process():
        return recorded.url
    wanted = int(recorded.url.rpartition(":")[2]) if recorded else port
    return f"http://127.0.0.1:{free_port(wanted)}"


def tracking_server(settings: Settings) -> str:
    """The address of the tracking server that the user has; empty if it is for us to serve a database."""
    return settings.tracking_uri.rstrip("/") if settings.tracking_uri.startswith(("http:", "https:")) else ""


def mlflow_command(settings: Settings, url: str) -> list[str]:
    """The command that serves, at `url`, the database that MLFLOW_BACKEND_STORE_URI names."""
    Path(settings.home / "mlflow").mkdir(parents=True, exist_ok=True)
    return [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", url.rpartition(":")[2],
        "--workers", "1", "--artifacts-destination", settings.artifacts or str(settings.home / "mlflow" / "artifacts"),
    ]  # fmt: skip


def stop_leftovers(home: Path) -> None:
    """End what services left that were killed: they hold ports, and write to databases that are served anew."""
    for service in recorded_services(home):
        if not service.process() and (count := stop_service(service)):
            print(f"stopped {count} left over from a killed {service.name} ({service.pid})")


def tell_lost_runs(home: Path, prefect_url: str) -> None:
    """Runs that a worker began and that nothing carries on: what a stopped or killed worker left."""
    # Prefect, which it needs, looks for a home that is there
    from tasks.services.endings import close_runs_without_worker

    for name in close_runs_without_worker(home, f"{prefect_url}/api"):
        print(f"marked as crashed, as its worker ended before it did: {name}; start it again")


def stop_worker(service: Service, home: Path) -> int:
    """End the worker and the nights that it started, one that it left behind, too. Returns how many processes ended."""
    from tasks.services.endings import noted_processes

    stopped = stop_service(service)
    for _, night, on_worker in noted_processes(home):
        if on_worker and night.process() and (count := stop_service(night)):
            stopped += count
            print(f"stopped {night.name} ({night.pid}), a night that the worker had started")
    return stopped


def served_home() -> Path | None:
    """The home that the `prefect` command reaches from the project's folder, as `up` wrote it; None if it did not."""
    try:
        return Path(tomllib.loads(CLIENT_SETTINGS.read_text(encoding="utf-8"))["home"]).parent
    except (OSError, ValueError, KeyError, TypeError):
        return None


def down() -> None:
    """Stop what `up` started for this home, with all processes of it and nothing else; the worker first, as it reports
    to Prefect. Raises NightStopped if services run for another home alone."""
    relocate(Settings.load())
    home, served = Settings.load().home, served_home()
    services = sorted(recorded_services(home), key=lambda service: service.name != "worker")
    stopped = 0
    urls = {service.name: service.url for service in read_services(home)}
    for service in services:
        if count := stop_worker(service, home) if service.name == "worker" else stop_service(service):
            stopped += count
            print(f"stopped {service.name} ({service.pid})")
        if service.name == "worker" and "prefect" in urls:
            tell_lost_runs(home, urls["prefect"])
    if services:
        services_file(home).unlink(missing_ok=True)
    if served and served != home and (names := [service.name for service in read_services(served)]):
        message = f"{', '.join(names)} run for another home: NIGHTSCHOOL_HOME={shlex.quote(str(served))} make down"
        if not stopped:
            raise NightStopped(f"nothing was running for {home}; {message}")
        print(message)
        return
    CLIENT_SETTINGS.unlink(missing_ok=True)
    if not stopped:
        print("nothing was running")


def sync_alarms(prefect_url: str) -> list[str]:
    """Make Prefect's automations as settings and armed schedules ask for; says what was changed and who is told."""
    from tasks.services.automations import sync

    changes = sync(prefect_url)
    lines = [f"automation {said}: {name}" for said, names in asdict(changes).items() for name in names]
    if notify_urls():
        return [*lines, "Alarms go to NIGHTSCHOOL_NOTIFY; try it: make alarm-test"]
    return [*lines, "Alarms go to nobody: NIGHTSCHOOL_NOTIFY is not set"]


def alarm_test() -> None:
    """Send a notice the way an alarm goes, and say whether it arrived. Raises NightStopped if it did not."""
    from tasks.services.automations import try_alarms

    print("\n".join(try_alarms(running_url("prefect"))))


def arm(recipe: str, active: bool) -> None:
    """Arm or pause the schedule of a recipe; nothing else does, `make up` included."""
    print("\n".join(set_armed(recipe, active)))
    sync_alarms(running_url("prefect"))


def main() -> int:
    """`python -m tasks.services up|down|alarm-test`, `python -m tasks.services arm|disarm RECIPE`."""
    actions: dict[tuple[str, int], Callable[..., None]] = {
        ("up", 0): up,
        ("down", 0): down,
        ("alarm-test", 0): alarm_test,
        ("arm", 1): partial(arm, active=True),
        ("disarm", 1): partial(arm, active=False),
    }
    action, *words = sys.argv[1:] or [""]
    if (action, len(words)) not in actions:
        print("usage: python -m tasks.services up|down|alarm-test|arm RECIPE|disarm RECIPE", file=sys.stderr)
        return 2
    try:
        actions[action, len(words)](*words)
    except Exception as error:
        message, code = ending(error, home_or_default())
        print(f"\n{message}", file=sys.stderr)
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
