"""PostgreSQL and an S3 store for tests: on loopback, in a folder of the test's own, stopped by process id."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.services.processes import free_port
from tests.waiting import wait_until

STARTED_SECONDS = 60
USER = "postgres"
UNPRIVILEGED = ("postgres", "nobody")
"""Who runs PostgreSQL where the tests run as root, for whom it does not start."""


def wait_for(answers: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a server answers; fails with the end of its log if it ends, or the time is up."""

    def ended() -> str:
        return "" if process.poll() is None else f"the server ended: {log.read_text(errors='replace')[-2_000:]}"

    wait_until(answers, STARTED_SECONDS, ended, f"the server did not answer, see {log}")


def stop(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
    process.send_signal(how)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Postgres:
    """A server with a database for each purpose."""

    port: int

    def make(self, database: str) -> None:
        self.sql(f'CREATE DATABASE "{database}"', "postgres")

    def sql(self, statement: str, database: str) -> list[tuple[object, ...]]:
        import psycopg2

        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user=USER, dbname=database, password="secret")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def url(self, database: str, driver: str = "postgresql") -> str:
        return f"{driver}://{USER}:secret@127.0.0.1:{self.port}/{database}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A new cluster on a free port. Skips the test where PostgreSQL or its driver is not installed.

    It has a temporary folder of its own: pytest's are for their owner alone, who may be root.
    """
    pytest.importorskip("psycopg2", reason="PostgreSQL's driver is not installed: pip install '.[postgresql]'")
    binaries = {name: shutil.which(name) for name in ("initdb", "postgres")}
    if missing := [name for name, path in binaries.items() if path is None]:
        pytest.skip(f"PostgreSQL is not installed: no {' and no '.join(missing)} on PATH")
    with (
        tempfile.TemporaryDirectory(prefix="nightschool-postgres-") as folder,
        cluster(Path(folder), str(binaries["initdb"]), str(binaries["postgres"])) as found,
    ):
        yield found


@contextmanager
def cluster(folder: Path, initdb: str, binary: str) -> Iterator[Postgres]:
    as_user = {"user": unprivileged()} if os.geteuid() == 0 else {}
    data, log, port = folder / "data", folder / "postgres.log", free_port()
    data.mkdir()
    (folder / "password").write_text("secret")
    for path in (folder, data, folder / "password") if as_user else ():
        shutil.chown(path, as_user["user"])
    subprocess.run(
        [initdb, "-D", str(data), "-U", USER, "-A", "scram-sha-256", "--no-sync", "-E", "UTF8",
         "--pwfile", str(folder / "password")],
        check=True, capture_output=True, cwd=folder, **as_user,
    )  # fmt: skip
    with log.open("wb") as output:
        server = subprocess.Popen(
            [binary, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", "",
             "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=60"],
            stdout=output, stderr=output, cwd=folder, **as_user,
        )  # fmt: skip
    found = Postgres(port)

    def answers() -> bool:
        import psycopg2

        try:
            return found.sql("SELECT 1", "postgres") == [(1,)]
        except psycopg2.OperationalError:
            return False

    try:
        wait_for(answers, server, log)
        yield found
    finally:
        stop(server, signal.SIGINT)  # a fast shutdown: it does not wait for those that are still connected


def unprivileged() -> str:
    import pwd

    for name in UNPRIVILEGED:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not start for root, and there is no other user here")


@dataclass(frozen=True)
class Bucket:
    """A bucket of an S3 store."""

    name: str
    endpoint: str
    environment: dict[str, str]
    """What clients need to reach it."""

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"

    def keys(self, prefix: str = "") -> list[str]:
        listed = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [found["Key"] for page in listed for found in page.get("Contents", ())]

    def delete(self, prefix: str) -> int:
        keys = self.keys(prefix)
        for key in keys:
            self.client().delete_object(Bucket=self.name, Key=key)
        return len(keys)

    def client(self):  # type: ignore[no-untyped-def]
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id="test",
            aws_secret_access_key="test",
        )  # fmt: skip


@contextmanager
def s3_store(folder: Path, name: str = "artifacts") -> Iterator[Bucket]:
    """moto's server with one bucket. Skips the test where it is not installed."""
    pytest.importorskip("boto3", reason="boto3 is not installed: pip install '.[s3]'")
    pytest.importorskip("moto.server", reason="moto's server is not installed: pip install 'moto[server]'")
    folder.mkdir(parents=True, exist_ok=True)
    log, port = folder / "s3.log", free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    environment = {
        "MLFLOW_S3_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    bucket = Bucket(name, endpoint, environment)

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{endpoint}/moto-api/data.json", timeout=2) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    try:
        wait_for(answers, server, log)
        bucket.client().create_bucket(Bucket=name)
        yield bucket
    finally:
        stop(server)
