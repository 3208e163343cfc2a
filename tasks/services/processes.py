"""Server processes of ours: started, waited for, found again and stopped by process id."""

from __future__ import annotations

import contextlib
import ctypes
import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tasks.errors import NightStopped
from tasks.settings import Settings

PROJECT = Path(__file__).resolve().parent.parent.parent
READY_TIMEOUT_SECONDS = 120


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
