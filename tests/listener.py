"""Somebody who is told: an HTTP server on loopback that keeps notices, in Apprise's JSON, or behaves badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Behaviour = Literal["takes", "fails", "hangs"]


class Listener(ThreadingHTTPServer):
    """Keeps the notices that it gets; one that fails answers 500, one that hangs nothing until `release` is set."""

    daemon_threads = True

    def __init__(self, behaviour: Behaviour = "takes") -> None:
        self.told: list[dict[str, Any]] = []
        self.arrived = threading.Event()
        self.release = threading.Event()
        self.behaviour = behaviour
        super().__init__(("127.0.0.1", 0), Keeping)

    @property
    def address(self) -> str:
        """As Apprise writes it."""
        return f"json://127.0.0.1:{self.server_port}"


class Keeping(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        self.server.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.arrived.set()
        if self.server.behaviour == "hangs":
            self.server.release.wait()
        self.send_response(500 if self.server.behaviour == "fails" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""


@contextmanager
def listening(behaviour: Behaviour = "takes") -> Iterator[Listener]:
    """The listener on a free port, stopped at the end."""
    with Listener(behaviour) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
