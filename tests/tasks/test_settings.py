"""Addresses are absolute whatever the environment says, and what the user has set stays."""

from __future__ import annotations

import getpass
import os
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.request import proxy_bypass

import httpx
import pytest
import requests

from tasks import settings
from tasks.errors import NightStopped
from tasks.settings import PROCESS, Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment of its own for each test, with nothing set, in a folder of its own."""
    own = {"HOME": str(tmp_path / "person")}
    monkeypatch.setattr("os.environ", own)
    monkeypatch.chdir(tmp_path)
    return own


@pytest.mark.parametrize("given", [{}, {"NIGHTSCHOOL_HOME": ""}])
def test_defaults_lie_in_the_project_wherever_the_command_is_started(
    environment: dict[str, str], tmp_path: Path, given: dict[str, str]
) -> None:
    environment |= given
    expected = ROOT / "store"
    assert Settings.load() == Settings(expected, f"sqlite:///{expected}/mlflow/mlflow.db")
    assert not any(tmp_path.iterdir()), "reading settings makes no folder"


@pytest.mark.parametrize(
    ("value", "expected"), [("nights", "nights"), ("~/nights", "person/nights"), ("a/../b", "a/../b")]
)
def test_the_home_is_absolute(environment: dict[str, str], tmp_path: Path, value: str, expected: str) -> None:
    environment["NIGHTSCHOOL_HOME"] = value
    assert Settings.load() == Settings(tmp_path / expected, f"sqlite:///{tmp_path / expected}/mlflow/mlflow.db")


def test_an_absolute_home_is_taken_as_it_is(environment: dict[str, str], tmp_path: Path) -> None:
    environment["NIGHTSCHOOL_HOME"] = str(tmp_path / "elsewhere")
    assert Settings.load().home == tmp_path / "elsewhere"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "sqlite:////data/mlflow.db", "postgresql://host/db"])
def test_an_absolute_tracking_address_is_taken_as_it_is(environment: dict[str, str], tmp_path: Path, uri: str) -> None:
    environment["MLFLOW_TRACKING_URI"] = uri
    assert Settings.load() == Settings(ROOT / "store", uri)


def test_a_relative_tracking_address_becomes_absolute(environment: dict[str, str], tmp_path: Path) -> None:
    """Else a worker, which runs in another folder, would write to another store."""
    environment["MLFLOW_TRACKING_URI"] = "sqlite:///runs.db"
    assert Settings.load().tracking_uri == f"sqlite:///{tmp_path}/runs.db"


def test_telemetry_is_off_unless_the_user_wants_it(environment: dict[str, str], tmp_path: Path) -> None:
    environment |= {"DO_NOT_TRACK": "0", "NIGHTSCHOOL_HOME": "store"}
    settings.prepare_libraries()
    assert {name: environment[name] for name in PROCESS} == PROCESS | {"DO_NOT_TRACK": "0"}
    assert environment["PREFECT_HOME"] == str(tmp_path / "store" / "prefect")


def test_a_running_server_is_used_unless_the_user_chose_one(environment: dict[str, str]) -> None:
    settings.use_prefect_api("http://127.0.0.1:4200/api")
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    settings.use_prefect_api("http://127.0.0.1:9/api")
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"


def test_preparing_a_process_makes_its_home(environment: dict[str, str], tmp_path: Path) -> None:
    environment["NIGHTSCHOOL_HOME"] = "store"
    settings.prepare_process()
    settings.prepare_process()
    assert (tmp_path / "store").is_dir()


@pytest.mark.parametrize(
    ("home", "reason"),
    [("file", "it is a file"), ("file/below", "{}/file is a file"), ("link", "it is a link to nothing")],
)
def test_a_home_that_cannot_be_made_is_a_message(
    environment: dict[str, str], tmp_path: Path, home: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    environment["NIGHTSCHOOL_HOME"] = home
    told = f"the home {tmp_path / home} cannot be made: {reason.format(tmp_path)}; set NIGHTSCHOOL_HOME to a folder"
    with pytest.raises(NightStopped, match=told):
        settings.prepare_process()


def test_a_home_that_cannot_be_written_to_is_a_message(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment["NIGHTSCHOOL_HOME"] = "store"
    monkeypatch.setattr("os.access", lambda path, mode: False)  # whoever runs the tests may write anywhere
    with pytest.raises(NightStopped, match=f"the home {tmp_path}/store cannot be written to by user .* give that user"):
        settings.prepare_process()


def nobody(*_: object) -> None:
    """What Python says where the password database has no such user."""
    raise KeyError("getpwuid(): uid not found: 12345")


def test_a_user_whom_the_machine_does_not_know_gets_a_home_folder_and_a_name(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("pwd.getpwnam", nobody)
    del environment["HOME"]
    environment["NIGHTSCHOOL_HOME"] = str(tmp_path / "store")
    settings.prepare_libraries()
    assert Path.home() == tmp_path / "store"
    assert getpass.getuser() == f"uid-{os.getuid()}"


def test_a_home_below_a_home_folder_that_is_not_there_is_a_message(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pwd.getpwnam", nobody)
    environment["NIGHTSCHOOL_HOME"] = "~someone/nights"
    settings.prepare_libraries()
    assert "PREFECT_HOME" in environment, "an import of ours must not end in an error that nobody can bound"
    with pytest.raises(NightStopped, match=r"'~someone/nights', and no home folder .* give the folder in full"):
        Settings.load()


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"us")

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""


@pytest.fixture(scope="module")
def loopback() -> Iterator[int]:
    """The port of a server on this machine, on IPv4."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


SPELLINGS = [spelt for name in settings.PROXIES for spelt in (name, name.upper())]
UNREACHABLE = ["http://127.0.0.1:9", "127.0.0.1:9", "socks5://127.0.0.1:9", "socks5h://127.0.0.1:9"]


@pytest.mark.parametrize("no_proxy", [{}, {"no_proxy": "example.org"}, {"NO_PROXY": "*"}])
@pytest.mark.parametrize("proxy", UNREACHABLE)
def test_this_machine_is_reached_past_any_proxy(
    environment: dict[str, str], loopback: int, proxy: str, no_proxy: dict[str, str]
) -> None:
    for spelt in SPELLINGS:
        environment.clear()
        environment |= {"HOME": "/", spelt: proxy, **no_proxy}
        settings.prepare_libraries()
        for host in ("127.0.0.1", "localhost"):
            url = f"http://{host}:{loopback}"
            with urllib.request.build_opener().open(url, timeout=5) as reply:
                assert reply.read() == b"us"
            assert requests.get(url, timeout=5).content == b"us"
            with httpx.Client(timeout=5) as client:
                assert client.get(url).content == b"us"
            assert proxy_bypass(host)


def test_what_else_needs_no_proxy_stays_and_the_proxy_stays_for_others(environment: dict[str, str]) -> None:
    environment |= {"NO_PROXY": "example.org, localhost", "no_proxy": ".lan", "https_proxy": "http://proxy:3128"}
    for _ in range(2):
        settings.prepare_libraries()
        assert environment["no_proxy"] == environment["NO_PROXY"] == ".lan,example.org,localhost,127.0.0.1,::1"
    assert settings.child_environment()["https_proxy"] == "http://proxy:3128"


def test_a_proxy_that_no_library_can_use_is_left_out_with_a_word(
    environment: dict[str, str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment |= {"ALL_PROXY": "socks5://person:secret@proxy:1080", "http_proxy": "http://proxy:3128"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    settings.prepare_libraries()
    assert "ALL_PROXY" not in environment
    assert "the SOCKS proxy of ALL_PROXY is left out" in caplog.text
    assert "secret" not in caplog.text
    assert environment["http_proxy"] == "http://proxy:3128"


def test_a_child_gets_our_environment_and_its_own_values(environment: dict[str, str]) -> None:
    environment["A"] = "ours"
    assert settings.child_environment(A="its", B="b") == environment | {"A": "its", "B": "b"}
    assert environment["A"] == "ours"
