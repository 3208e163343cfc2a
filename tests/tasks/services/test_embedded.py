"""Prefect's server for one run: many runs begin at once in a new home, and each gets its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.settings import PROJECT

RUNS = 8
RUN = """
from tasks.services.embedded import reaching_prefect
with reaching_prefect():
    from prefect import get_client
with get_client(sync_client=True) as client:
    print(client.hello().status_code)
"""


@pytest.mark.slow
def test_runs_that_begin_at_once_in_a_new_home_all_reach_prefect(tmp_path: Path) -> None:
    environment = os.environ | {"NIGHTSCHOOL_HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", RUN], cwd=PROJECT, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(RUNS)
    ]  # fmt: skip
    said = [run.communicate()[0] for run in begun]
    assert [run.returncode for run in begun] == [0] * RUNS, said
    assert all("200" in lines for lines in said)
