"""What tests of several packages share: a home of their own, a quiet Prefect, small real text."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything of ours is imported: no test may see, or write to, the home of the person who runs them.
os.environ.pop("PREFECT_API_URL", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ["NIGHTSCHOOL_HOME"] = tempfile.mkdtemp(prefix="nightschool-tests-")
os.environ["PREFECT_HOME"] = os.environ["NIGHTSCHOOL_HOME"]
atexit.register(shutil.rmtree, os.environ["NIGHTSCHOOL_HOME"], ignore_errors=True)
# A shell that starts the tests in the background has them ignore Ctrl-C, and what is to be tested with it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same examples each time, and no clock: what a busy machine fails is no finding.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None, max_examples=25)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files, and no tests of a file."""
    from tests.shortcuts import LONGEST_FIRST

    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(autouse=True)
def _log_is_left_as_it_was() -> Iterator[None]:
    """The command line takes the log for its own, and no later test would see a line of it."""
    log = logging.getLogger("nightschool")
    handlers, propagate, level = list(log.handlers), log.propagate, log.level
    yield
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for one test."""
    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home" / "prefect"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all processes of these tests; whoever writes to it holds the others off."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def _time_goes_to_what_is_tested(shared_folder: Path) -> Iterator[None]:
    from tests.shortcuts import copy_instead_of_making, leave_pictures_blank, without_waiting_for_the_disk

    with pytest.MonkeyPatch.context() as patch, without_waiting_for_the_disk(patch):
        copy_instead_of_making(shared_folder, patch)
        leave_pictures_blank(patch)
        yield


@pytest.fixture
def brief_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.shortcuts import probe_briefly

    probe_briefly(monkeypatch)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Iterator[None]:
    """One embedded Prefect server with a temporary database for all tests that run flows in this process."""
    from prefect.testing import utilities

    from tasks.services.databases import PREFECT
    from tests.shortcuts import made_once

    folder = tmp_path_factory.mktemp("prefect")
    shutil.copy(made_once(PREFECT, shared_folder), folder / "prefect-test.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", lambda: str(folder))  # where the harness would make one anew
        with utilities.prefect_test_harness(server_startup_timeout=120):
            yield
