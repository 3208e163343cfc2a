"""The files of a registered version: on this machine, or in a store whence they are copied once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import mlflow

from model.files import publish_folder

COPIES = "models"
"""Folder of a home: copies of registered models whose files lie elsewhere."""
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
        beside = folder / f".{name}.{os.getpid()}.partial"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            made = mlflow.artifacts.download_artifacts(source, dst_path=str(beside), tracking_uri=tracking_uri)
            publish_folder(Path(made), place)
        except OSError:
            if not place.exists():  # else another process was first, with the same files
                raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    os.utime(place)
    model = name.rpartition("@")[0]
    copies = sorted(folder.glob(f"{model}@*"), key=lambda copy: copy.stat().st_mtime, reverse=True)
    for old in copies[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return place
