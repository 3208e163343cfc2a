"""What tests of several packages share: a home of their own, a quiet Prefect, small real text."""

from __future__ import annotations

import os
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
# A shell that starts the tests in the background has them ignore Ctrl-C, and what is to be tested with it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same examples each time, and no clock: what a busy machine fails is no finding.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None, max_examples=25)
settings.load_profile("repeatable")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for one test."""
    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home" / "prefect"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One embedded Prefect server with a temporary database for all tests that run flows in this process."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
