"""Artifacts in an S3 store: a night's files, its export and the registered model lie there, and are read from there."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.retrain_nightly import retrain_nightly
from tasks.in_use.version import usable_model
from tasks.night.by_hand import promote_version
from tasks.night.report import NightReport
from tasks.services.processes import free_port
from tasks.tracking.client import require_driver
from tasks.tracking.registry import ModelFilesGone, Refused
from tests.servers import Bucket, s3_store, stop, wait_for
from tests.tiny_recipe import tiny_recipe

WEIGHTS = "model/model.safetensors"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with s3_store(tmp_path / "s3") as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def server(bucket: Bucket, tmp_path: Path) -> Iterator[str]:
    """An MLflow server that alone reaches the bucket."""
    port, log = free_port(), tmp_path / "mlflow.log"
    variables = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/server.db",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "0",
    }
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--artifacts-destination", f"{bucket.uri}/proxied",
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=os.environ | variables, stdout=output, stderr=output, cwd=tmp_path, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    try:
        wait_for(answers, process, log)
        yield url
    finally:
        stop(process)


def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[NightReport, NightReport]:
    """Two nights, the second with other settings: its model is judged beside the first one's."""
    monkeypatch.setenv("NIGHTSCHOOL_HOME", str(tmp_path / "home"))
    recipe = tiny_recipe(tmp_path / "raw")
    first = retrain_nightly(recipe=recipe)
    second = retrain_nightly(recipe=recipe, overrides={"sft.optim.peak_lr": 0.02, "promote.mode": "auto"})
    return first, second


def check(bucket: Bucket, prefix: str, reports: tuple[NightReport, NightReport], home: Path) -> None:
    first, second = reports
    assert first.decision["promoted"] and first.reports_waiting == second.reports_waiting == 0
    assert len([key for key in bucket.keys(prefix) if key.endswith(WEIGHTS)]) == 2
    assert "bits per byte against the champion on" in str(second.decision["reason"]), "it was read from there"
    promote_version("tiny", 2)
    assert promote_version("tiny", None).startswith("champion is version 1, before it was 2")
    champion = usable_model("tiny", None)
    exported = first.records[-1].path / "model"
    assert champion.version == 1
    assert champion.folder.is_relative_to(home / "models"), "a copy of the home's, made once"
    for path in exported.rglob("*"):
        if path.is_file():
            assert (champion.folder / path.relative_to(exported)).read_bytes() == path.read_bytes()
    assert usable_model("tiny", None).folder == champion.folder
    assert bucket.delete(prefix) > 0
    with pytest.raises(ModelFilesGone, match=r"files of version 1 of nightschool-tiny, the champion, are gone"):
        usable_model("tiny", None)


@pytest.mark.slow
def test_artifacts_that_nights_write_to_s3_themselves(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: None
) -> None:
    monkeypatch.setenv("NIGHTSCHOOL_ARTIFACTS", f"{bucket.uri}/direct")
    reports = nights(tmp_path, monkeypatch)
    assert not (tmp_path / "home" / "mlflow" / "artifacts").exists()
    check(bucket, "direct/", reports, tmp_path / "home")


@pytest.mark.slow
def test_artifacts_that_a_tracking_server_keeps_in_s3(
    bucket: Bucket, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: None
) -> None:
    for name in bucket.environment:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    check(bucket, "proxied/", nights(tmp_path, monkeypatch), tmp_path / "home")


def test_a_store_whose_library_is_missing_is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    require_driver("file:///store/mlflow/artifacts")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"artifacts go to s3://bucket, and boto3, .* pip install 'nightschool\[s3\]'"):
        require_driver("s3://bucket")
