"""A file server on loopback that counts what it sends and can misbehave."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What the server has, and what it sent."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    """Path of each body sent."""
    status: int = 200
    missing_bytes: int = 0
    """How many bytes each body is shorter than announced."""
    changed: int = 0
    """Seconds to add to the time of modification."""


@contextmanager
def serve() -> Iterator[Served]:
    """The server on a free port, stopped at the end."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            body = served.files.get(self.path)
            status = 404 if body is None else served.status
            tag = f'"{hashlib.sha256(body or b"").hexdigest()}"'
            if status == 200 and self.headers.get("If-None-Match") == tag:
                status = 304
            content = body if body is not None and status == 200 else b""
            self.send_response(status)
            self.send_header("ETag", tag)
            self.send_header("Last-Modified", formatdate(1_700_000_000 + served.changed, usegmt=True))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body and content:
                served.sent.append(self.path)
                self.wfile.write(content[: len(content) - served.missing_bytes])

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
