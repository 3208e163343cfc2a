"""Addresses are absolute whatever the environment says, and what the user has set stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import settings
from tasks.errors import NightStopped
from tasks.settings import PROCESS, Settings


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment of its own for each test, with nothing set, in a folder of its own."""
    own = {"HOME": str(tmp_path / "person")}
    monkeypatch.setattr("os.environ", own)
    monkeypatch.chdir(tmp_path)
    return own


def test_defaults_lie_below_the_current_folder(tmp_path: Path) -> None:
    expected = tmp_path / "store"
    assert Settings.load() == Settings(expected, f"sqlite:///{expected}/mlflow/mlflow.db")
    assert not expected.exists(), "reading settings makes no folder"


@pytest.mark.parametrize(
    ("value", "expected"), [("nights", "nights"), ("~/nights", "person/nights"), ("", "store"), ("a/../b", "a/../b")]
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
    assert Settings.load() == Settings(tmp_path / "store", uri)


def test_a_relative_tracking_address_becomes_absolute(environment: dict[str, str], tmp_path: Path) -> None:
    """Else a worker, which runs in another folder, would write to another store."""
    environment["MLFLOW_TRACKING_URI"] = "sqlite:///runs.db"
    assert Settings.load().tracking_uri == f"sqlite:///{tmp_path}/runs.db"


def test_telemetry_is_off_unless_the_user_wants_it(environment: dict[str, str], tmp_path: Path) -> None:
    environment["DO_NOT_TRACK"] = "0"
    settings.prepare_libraries()
    assert {name: environment[name] for name in PROCESS} == PROCESS | {"DO_NOT_TRACK": "0"}
    assert environment["PREFECT_HOME"] == str(tmp_path / "store" / "prefect")


def test_a_running_server_is_used_unless_the_user_chose_one(environment: dict[str, str]) -> None:
    settings.use_prefect_api("http://127.0.0.1:4200/api")
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    settings.use_prefect_api("http://127.0.0.1:9/api")
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"


def test_preparing_a_process_makes_its_home(tmp_path: Path) -> None:
    settings.prepare_process()
    settings.prepare_process()
    assert (tmp_path / "store").is_dir()


@pytest.mark.parametrize("home", ["file", "file/below"])
def test_a_home_that_cannot_be_made_is_a_message(environment: dict[str, str], tmp_path: Path, home: str) -> None:
    (tmp_path / "file").touch()
    environment["NIGHTSCHOOL_HOME"] = home
    with pytest.raises(NightStopped, match=f"the home {tmp_path / home} cannot be made .*; set NIGHTSCHOOL_HOME"):
        settings.prepare_process()


def test_a_child_gets_our_environment_and_its_own_values(environment: dict[str, str]) -> None:
    environment["A"] = "ours"
    assert settings.child_environment(A="its", B="b") == environment | {"A": "its", "B": "b"}
    assert environment["A"] == "ours"
