"""Prefect server, worker and MLflow on loopback, started and stopped by process id (`make up`, `make down`)."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from model.files import write_json
from tasks.errors import NightStopped
from tasks.settings import Settings, child_environment, chosen_prefect_api, use_prefect_api

PROJECT = Path(__file__).resolve().parent.parent
POOL = "nightschool"
PREFECT_PORT, MLFLOW_PORT = 4200, 5000
"""Preferred; another free one is taken if something listens there."""
READY_TIMEOUT_SECONDS = 120
CLIENT_SETTINGS = PROJECT / "prefect.toml"
"""Prefect reads it in the project folder, so that `prefect deployment run …` finds the server without variables."""


@dataclass(frozen=True)
class Service:
    """A process we started; the start time tells it from a later one with the same id."""

    name: str
    pid: int
    started: float
    url: str = ""

    def process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            alive = process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - self.started) < 1
        except psutil.Error:
            return None
        return process if alive else None


def services_file(home: Path) -> Path:
    return home / "services" / "services.json"


def read_services(home: Path) -> list[Service]:
    """Services that were started from this home and still run."""
    try:
        written = [Service(**entry) for entry in json.loads(services_file(home).read_text())]
    except (OSError, ValueError, TypeError):
        return []
    return [service for service in written if service.process()]


def running_url(name: str) -> str:
    """Address of a service of `make up` that runs, or nothing."""
    return next((service.url for service in read_services(Settings.load().home) if service.name == name), "")


def free_port(preferred: int = 0) -> int:
    """`preferred` if nothing listens there, else one the system gives."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def take_signals() -> None:
    """In a child, before it becomes the service: a shell that starts us in the background ignores SIGINT, which the
    worker needs in order to end."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def die_with_parent() -> None:
    """In a child, before it becomes the service: have Linux end it when its parent ends, however that happens."""
    take_signals()
    with contextlib.suppress(AttributeError, OSError):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def start(
    name: str,
    command: list[str],
    environment: dict[str, str],
    home: Path,
    url: str = "",
    prepare: Callable[[], None] = take_signals,
) -> Service:
    """Start a process in a session of its own, where no Ctrl-C reaches it, its output in a log under the home."""
    log = home / "services" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, preexec_fn=prepare,
        )  # fmt: skip
    return Service(name, process.pid, psutil.Process(process.pid).create_time(), url)


def wait_until(ready: Callable[[], bool], service: Service, home: Path) -> None:
    """Poll until ready. Raises NightStopped with the log's end if the process dies or takes too long."""
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while not ready():
        if service.process() is None or time.monotonic() > deadline:
            log = home / "services" / f"{service.name}.log"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
            raise NightStopped(f"{service.name} did not come up; the end of {log}:\n{tail}")
        time.sleep(0.2)


def answers(url: str) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    return ask


def embedded_prefect() -> Service:
    """Start Prefect's API for as long as this process lives.

    Prefect would start such a server itself, in our process group: Ctrl-C would end it first and every state after
    that would be lost, and a killed run would leave it behind for ever. Call this before Prefect is imported: what
    is registered first runs last at exit, and Prefect still sends events then.
    """
    home = Settings.load().home
    port = free_port()
    environment = child_environment(PREFECT_UI_ENABLED="0", PREFECT__SERVER_EPHEMERAL="1", PREFECT__SERVER_FINAL="1")
    command = [
        sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1",
        "--port", str(port), "--log-level", "error", "--lifespan", "on",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    service = start("embedded-prefect", command, environment, home, url, prepare=die_with_parent)
    atexit.register(stop, service)
    return service


@contextlib.contextmanager
def reaching_prefect() -> Iterator[None]:
    """Have this process report to the server of `make up`, or else to an embedded one, which answers from the end on.

    Prefect is imported inside, never before: it reads its settings then, and the server comes up at the same time.
    """
    url = running_url("prefect")
    server = None if url or chosen_prefect_api() else embedded_prefect()
    use_prefect_api(f"{server.url if server else url}/api")
    yield
    if server:
        wait_until(answers(f"{server.url}/api/health"), server, Settings.load().home)


def stop(service: Service) -> None:
    """End a service and its children, politely first."""
    process = service.process()
    if process is None:
        return
    children = process.children(recursive=True)
    process.terminate()
    _, stubborn = psutil.wait_procs([process, *children], timeout=15)
    for survivor in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()


def up() -> None:
    """Start what is not running, register the deployments, print the addresses."""
    settings = Settings.load()
    home, running = settings.home, {service.name: service for service in read_services(settings.home)}
    prefect_url = running["prefect"].url if "prefect" in running else f"http://127.0.0.1:{free_port(PREFECT_PORT)}"
    mlflow_url = running["mlflow"].url if "mlflow" in running else f"http://127.0.0.1:{free_port(MLFLOW_PORT)}"
    environment = child_environment(
        NIGHTSCHOOL_HOME=str(home),
        NIGHTSCHOOL_ROOT=str(PROJECT),
        MLFLOW_TRACKING_URI=settings.tracking_uri,
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        PREFECT_API_URL=f"{prefect_url}/api",
        PREFECT_HOME=str(home / "prefect"),
        PYTHONPATH=str(PROJECT),
    )
    prefect = str(Path(sys.executable).with_name("prefect"))
    try:
        if "prefect" not in running:
            port = prefect_url.rpartition(":")[2]
            command = [prefect, "server", "start", "--host", "127.0.0.1", "--port", port]
            running["prefect"] = start("prefect", command, environment, home, prefect_url)
        if "mlflow" not in running:
            running["mlflow"] = start("mlflow", mlflow_command(settings, mlflow_url), environment, home, mlflow_url)
        wait_until(answers(f"{prefect_url}/api/health"), running["prefect"], home)
        register_deployments(prefect, environment)
        if "worker" not in running:
            command = [prefect, "worker", "start", "--pool", POOL, "--type", "process"]
            running["worker"] = start("worker", command, environment, home)
        wait_until(answers(f"{mlflow_url}/health"), running["mlflow"], home)
    finally:
        write_json(services_file(home), [asdict(service) for service in running.values()])
    CLIENT_SETTINGS.write_text(f'home = "{home / "prefect"}"\n\n[api]\nurl = "{prefect_url}/api"\n')
    print(
        f"Prefect  {prefect_url}\nMLflow   {mlflow_url}\n"
        "Run one  .venv/bin/prefect deployment run retrain-nightly/demo --watch\n"
        "Stop     make down"
    )


def mlflow_command(settings: Settings, url: str) -> list[str]:
    """MLflow's server over the same store that the flows write to."""
    Path(settings.home / "mlflow").mkdir(parents=True, exist_ok=True)
    return [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", url.rpartition(":")[2],
        "--workers", "1", "--backend-store-uri", settings.tracking_uri,
        "--artifacts-destination", str(settings.home / "mlflow" / "artifacts"),
    ]  # fmt: skip


def register_deployments(prefect: str, environment: dict[str, str]) -> None:
    """Create the work pool and every deployment of prefect.yaml; both can be repeated."""
    for command in (
        [prefect, "--no-prompt", "work-pool", "create", POOL, "--type", "process", "--overwrite"],
        [prefect, "--no-prompt", "deploy", "--all"],
    ):
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NightStopped(f"{' '.join(command[1:])} failed:\n{(done.stdout + done.stderr)[-1_000:]}")


def down() -> None:
    """Stop what `up` started: the worker first, children with their parents, nothing else."""
    home = Settings.load().home
    services = sorted(read_services(home), key=lambda service: service.name != "worker")
    for service in services:
        stop(service)
        print(f"stopped {service.name} ({service.pid})")
    services_file(home).unlink(missing_ok=True)
    CLIENT_SETTINGS.unlink(missing_ok=True)
    if not services:
        print("nothing was running")


def main() -> int:
    """`python -m tasks.services up|down`."""
    actions = {"up": up, "down": down}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        print("usage: python -m tasks.services up|down", file=sys.stderr)
        return 2
    try:
        actions[sys.argv[1]]()
    except NightStopped as stop:
        print(f"\n{stop}", file=sys.stderr)
        return stop.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
