"""What costs seconds and decides nothing: making empty databases, painting, probing for speed, waiting for the disk."""

from __future__ import annotations

import base64
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from sqlalchemy import Engine, event

from tasks.services.databases import MLFLOW, PREFECT, Server, make_whole

PREFECT_FILE, MLFLOW_FILE = "prefect/prefect.db", "mlflow/mlflow.db"
"""Where they lie in a home."""
LONGEST_FIRST = (
    "benchmarks/year/test_year.py",
    "flows/test_store_away.py",
    "flows/test_command_line.py",
    "tasks/services/test_processes.py",
    "flows/test_chain.py",
    "flows/test_copied_home.py",
    "test_deployments.py",
    "tasks/questions/test_answers.py",
    "test_readme.py",
)
"""Files that take half a minute or more: one that is begun late leaves the other process idle at the end."""
BLANK = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAG7buVgAAAABJRU5ErkJggg==")
"""A picture of one pixel."""


def made_once(server: Server, folder: Path) -> Path:
    """The server's database with its tables and nothing in them, to be read only; `folder` is shared by all."""
    path = folder / f"{server.package}.db"
    make_whole(path, server)
    return path


def copy_instead_of_making(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have an empty database copied in this process where the server's command would make it in seconds."""
    make = Server.upgrade

    def upgrade(server: Server, path: Path) -> None:
        if path.exists() or path.parent == folder:
            make(server, path)
        else:
            shutil.copy(made_once(server, folder), path)

    patch.setattr(Server, "upgrade", upgrade)


def with_databases(home: Path, folder: Path) -> Path:
    """A home with both databases in it, for a process of its own, which would make them."""
    for server, name in ((PREFECT, PREFECT_FILE), (MLFLOW, MLFLOW_FILE)):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made_once(server, folder), home / name)
    return home


def leave_pictures_blank(patch: pytest.MonkeyPatch) -> None:
    """Have figures made and not painted: painting takes longer than the training that they show."""

    def save(figure: Figure, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(BLANK)
        return path

    patch.setattr("tasks.pages.figures.save", save)


def probe_briefly(patch: pytest.MonkeyPatch) -> None:
    """Have a plan measured by as few steps as there can be, instead of for seconds."""
    for module in ("plan", "probe"):
        patch.setattr(f"tasks.planning.{module}.PROBE_SECONDS", 0.0)
    patch.setattr("tasks.planning.plan.LEAST_TURNS", 1)


@contextmanager
def without_waiting_for_the_disk(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have nothing flushed in this process: tests kill processes, which loses nothing of it, and cut no power."""

    def stop_flushing(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    patch.setattr(os, "fsync", lambda _: None)
    event.listen(Engine, "connect", stop_flushing)
    try:
        yield
    finally:
        event.remove(Engine, "connect", stop_flushing)
