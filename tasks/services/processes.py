"""Server processes that this project starts: started, awaited, found again and stopped by process id."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
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

from tasks.alive import Mark
from tasks.errors import NightStopped
from tasks.settings import PROJECT, Settings

HEALTHY_TIMEOUT_SECONDS, POLL_SECONDS, STOP_TIMEOUT_SECONDS = 120, 0.2, 15
LOG_LINES_SHOWN, LOG_CHARACTERS_SHOWN = 8, 1_000


@dataclass(frozen=True)
class Service:
    """A process that was started here. Its start distinguishes it from a later one with the same id."""

    name: str
    pid: int
    started: float
    """As a `Mark` has it."""
    url: str = ""
    boot: str = ""
    """Which start of the machine it ran in."""

    @classmethod
    def of(cls, name: str, pid: int, url: str = "") -> Service:
        """Of a running process. Raises psutil.NoSuchProcess."""
        mark = Mark.of(pid)
        return cls(name, pid, mark.started, url, mark.boot)

    @property
    def mark(self) -> Mark:
        return Mark(self.pid, self.started, self.boot)

    def process(self) -> psutil.Process | None:
        """The running process, or None if it has ended."""
        return self.mark.process()

    def members(self) -> list[psutil.Process]:
        """Every running process of the service: it, its children, and what a killed one left in its session.

        A service leads a session of its own. Its number is not given to another process while one of the session is
        left; so where another process has it, or none, what is found is checked by age and folder.
        """
        leader = self.process()
        if leader is None and psutil.pid_exists(self.pid):
            return []
        found = {process.pid: process for process in [leader, *leader.children(recursive=True)]} if leader else {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
                if os.getsid(process.pid) == self.pid and (leader or self._is_left(process)):
                    found[process.pid] = process
        return [process for process in found.values() if runs(process)]

    def _is_left(self, process: psutil.Process) -> bool:
        return self.mark.began_before(process) and Path(process.cwd()) == PROJECT


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended; one that its parent did not ask for has."""
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def services_file(home: Path) -> Path:
    """Where `make up` records the services it started."""
    return home / "services" / "services.json"


def recorded_services(home: Path) -> list[Service]:
    """Services that `make up` started for this home, whether they run or not."""
    try:
        return [Service(**entry) for entry in json.loads(services_file(home).read_text())]
    except (OSError, ValueError, TypeError):
        return []


def read_services(home: Path) -> list[Service]:
    """Services that `make up` started for this home and that still run."""
    return [service for service in recorded_services(home) if service.process()]


def running_url(name: str) -> str:
    """Address of a running service of `make up`, or an empty string."""
    return next((service.url for service in read_services(Settings.load().home) if service.name == name), "")


def free_port(preferred: int = 0) -> int:
    """A port of 127.0.0.1: `preferred` if nothing listens there, else one that the system chooses."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: closed connections linger
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def restore_sigint() -> None:
    """In the child, before it becomes the service: let SIGINT end it again.

    A shell that starts this process in the background has it ignore SIGINT, children inherit that, and Prefect's worker
    ends by SIGINT alone.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def terminate_with_parent() -> None:
    """In the child, before it becomes the service: have Linux end it when its parent ends, even if that is killed."""
    restore_sigint()
    with contextlib.suppress(AttributeError, OSError):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def start_service(
    name: str,
    command: list[str],
    environment: dict[str, str],
    home: Path,
    url: str = "",
    prepare: Callable[[], None] = restore_sigint,
) -> Service:
    """Start a process in a session of its own, where no Ctrl-C reaches it, its output in a log under the home.

    `name`: of the service and of its log, `home/services/NAME.log`. `command`: program and arguments. `environment`:
    all variables of the process. `home`: folder of the home. `url`: where it will answer, if anywhere. `prepare`: runs
    in the child before the command does. Raises OSError if the program cannot be started.
    """
    log = home / "services" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, preexec_fn=prepare,
        )  # fmt: skip
    return Service.of(name, process.pid, url)


def wait_until_healthy(healthy: Callable[[], bool], service: Service, home: Path) -> None:
    """Poll until `healthy`. Raises NightStopped with the log's end if the process ends or the time is up."""
    deadline = time.monotonic() + HEALTHY_TIMEOUT_SECONDS
    while not healthy():
        running = service.process() is not None
        if not running or time.monotonic() > deadline:
            log = home / "services" / f"{service.name}.log"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])[-LOG_CHARACTERS_SHOWN:]
            reason = f"did not answer within {HEALTHY_TIMEOUT_SECONDS} s"
            if not running:
                reason = f"ended{how_ended(service.pid)} before it answered"
            ending = f"which ends with:\n{tail}" if tail else "which is empty"
            raise NightStopped(f"{service.name} {reason}; run the same again, or see {log}, {ending}")
        time.sleep(POLL_SECONDS)


def how_ended(pid: int) -> str:
    """With which exit code or by which signal a child of this process ended; empty if nobody knows any more."""
    try:
        code = psutil.Process(pid).wait(0)
    except psutil.Error:
        return ""
    if code is None:
        return ""
    return f" by signal {signal.Signals(-code).name}" if code < 0 else f" with exit code {code}"


def answers_at(url: str) -> Callable[[], bool]:
    """A check whether `url` answers with status 200."""

    def answers() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    return answers


def stop_service(service: Service) -> int:
    """End a service with all its processes: SIGTERM to it, or to what a killed one left, then SIGKILL to what is left
    after STOP_TIMEOUT_SECONDS. Returns how many there were."""
    leader, members = service.process(), service.members()
    for process in [leader] if leader else members:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(members, timeout=STOP_TIMEOUT_SECONDS)
    survivors = {process.pid: process for process in (*members, *service.members()) if runs(process)}.values()
    for survivor in survivors:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()
    psutil.wait_procs(list(survivors), timeout=STOP_TIMEOUT_SECONDS)
    return len(members)
