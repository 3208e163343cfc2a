"""Prefect's server for one run in this process, where none is running."""

from __future__ import annotations

import atexit
import contextlib
import sys
from collections.abc import Iterator

from tasks.relocation import relocate
from tasks.services.databases import PREFECT, make_whole
from tasks.services.processes import (
    Service,
    answers_at,
    free_port,
    running_url,
    start_service,
    stop_service,
    terminate_with_parent,
    wait_until_healthy,
)
from tasks.settings import Settings, child_environment, chosen_prefect_api, prefect_database, use_prefect_api


def embedded_prefect() -> Service:
    """Start Prefect's API for as long as this process lives.

    Prefect would start such a server itself, in our process group: Ctrl-C would end it first and every state after
    that would be lost, and a killed run would leave it running. Call this before Prefect is imported: exit handlers
    run in reverse order, and Prefect's own, which still sends events, must run before the server is stopped.
    """
    home = Settings.load().home
    if database := prefect_database():
        make_whole(database, PREFECT)
    port = free_port()
    environment = child_environment(
        PREFECT_UI_ENABLED="0",
        PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED="false",  # automations are the lasting server's: notices go from here
        PREFECT__SERVER_EPHEMERAL="1",
        PREFECT__SERVER_FINAL="1",
        PREFECT_SERVER_REGISTER_BLOCKS_ON_START="0",  # of servers that do so at once in a new database, some fail
    )
    command = [
        sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1",
        "--port", str(port), "--log-level", "error", "--lifespan", "on",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    service = start_service("embedded-prefect", command, environment, home, url, prepare=terminate_with_parent)
    atexit.register(stop_service, service)
    return service


@contextlib.contextmanager
def reaching_prefect() -> Iterator[None]:
    """Have this process report to the server of `make up`, or else to an embedded one, which answers once this ends.

    Import Prefect inside, never before: it reads its settings when it is imported, and the server starts meanwhile.
    Raises NightStopped if the embedded server does not come up.
    """
    relocate(Settings.load())
    url = running_url("prefect")
    server = None if url or chosen_prefect_api() else embedded_prefect()
    use_prefect_api(f"{server.url if server else url}/api")
    yield
    if server:
        wait_until_healthy(answers_at(f"{server.url}/api/health"), server, Settings.load().home)
