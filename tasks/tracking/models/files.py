"""The files of a registered version: on this machine, or in a store whence they are copied once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import mlflow
import psutil

from model.files import fsync

COPIES = "models"
"""Folder of a home: copies of registered models whose files lie elsewhere."""
PARTIAL = ".partial"
KEPT = 4
"""Copies of each registered model that stay, the newest: champion, the one before, and what a person looked at."""


def local_path(uri: str) -> Path | None:
    """Where the files of a version, or of a run, lie if they lie on this machine."""
    parsed = urlparse(uri)
    return Path(url2pathname(parsed.path)) if parsed.scheme in ("", "file") else None


def listed(source: str, tracking_uri: str) -> bool:
    """Whether anything lies at an address of a store. Raises what the store's library does if it does not answer."""
    try:
        return bool(mlflow.artifacts.list_artifacts(artifact_uri=source, tracking_uri=tracking_uri))
    except Exception as error:
        response = getattr(error, "response", None)  # of botocore, which may not be installed
        if isinstance(response, dict) and response.get("Error", {}).get("Code") == "NoSuchBucket":
            return False
        raise


def copy_in(folder: Path, name: str, source: str, tracking_uri: str) -> Path:
    """A copy of a version's files in `folder`, made once and whole; the oldest of the same model make room.

    name: MODEL@VERSION-DIGEST.
    """
    place = folder / name
    if not place.exists():
        remove_left_behind(folder)
        beside = folder / f".{name}.{os.getpid()}{PARTIAL}"
        beside.mkdir(parents=True)
        try:
            made = Path(mlflow.artifacts.download_artifacts(source, dst_path=str(beside), tracking_uri=tracking_uri))
            for path in (*made.rglob("*"), made):
                fsync(path)
            made.rename(place)
            fsync(folder)
        except OSError:
            if not place.exists():  # else another process was first, whose copy may be in use by now
                raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    os.utime(place)
    model = name.rpartition("@")[0]
    copies = sorted(folder.glob(f"{model}@*"), key=lambda copy: copy.stat().st_mtime, reverse=True)
    for old in copies[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def remove_left_behind(folder: Path) -> None:
    """Delete what this process and those that are gone had begun to copy."""
    for begun in folder.glob(f".*{PARTIAL}"):
        number = begun.name.removesuffix(PARTIAL).rpartition(".")[2]
        if not number.isdecimal() or int(number) == os.getpid() or not psutil.pid_exists(int(number)):
            shutil.rmtree(begun, ignore_errors=True)
