"""What Prefect's server is asked, by a server that misbehaves as a busy one does."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tasks.errors import NightStopped
from tasks.services.deployments import ask


@contextmanager
def serving(*statuses: int) -> Iterator[str]:
    """A server that answers with one status after another, the last for ever, and says what it was asked."""
    left = list(statuses)

    class Answer(BaseHTTPRequestHandler):
        def answer(self) -> None:
            status = left.pop(0) if len(left) > 1 else left[0]
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
            told = json.dumps({"asked": f"{self.command} {self.path}", "body": body}).encode()
            content = b"" if status == 204 else told
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = answer
        log_message: Callable[..., None] = lambda *_: None

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("statuses", [(200,), (503, 200), (429, 503, 200)])
def test_a_server_that_is_busy_is_asked_again(statuses: tuple[int, ...]) -> None:
    with serving(*statuses) as url:
        answer = ask(url, "deployments/filter", "POST", {"a": 1})
    assert answer == {"asked": "POST /api/deployments/filter", "body": {"a": 1}}


def test_an_empty_answer_and_a_name_it_does_not_know_are_none() -> None:
    with serving(204) as url:
        assert ask(url, "deployments/x/schedules/y", "PATCH", {"active": True}) is None
    with serving(404) as url:
        assert ask(url, "deployments/name/f/nosuch") is None


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_refuses_is_named_in_one_line(status: int) -> None:
    with serving(status) as url, pytest.raises(NightStopped) as caught:
        ask(url, "deployments/filter", "POST", {})
    said = str(caught.value)
    assert url in said and "deployments/filter" in said and str(status) in said and "\n" not in said


def test_no_server_is_told_with_the_cure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(NightStopped, match=r"does not answer: .*make up"):
            ask(url, "deployments/filter")
