"""Files that lie elsewhere, copied into the home: fsspec addresses and the hub."""

from __future__ import annotations

import glob
import shutil
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import fsspec

from model.files import made_once
from tasks.errors import NightStopped
from tasks.home.digests import digest_of
from tasks.recipes.stage_configs import HUB, SourceConfig


def bring_remote(source: SourceConfig, downloads: Path) -> list[tuple[Path, Path]]:
    """Copy files of an fsspec address, unless the copy here is of the same remote state."""
    try:
        filesystem, pattern = fsspec.core.url_to_fs(source.location)

        def copy(remote: str, path: Path) -> None:
            with filesystem.open(remote, "rb", compression=None) as reader, path.open("wb") as writer:
                shutil.copyfileobj(reader, writer)

        found = []
        for remote in sorted(filesystem.glob(pattern)) if glob.has_magic(pattern) else [pattern]:
            # `info` holds what the remote says of its state (ETag, date, size); `ukey` of http is the address alone.
            state = digest_of({key: str(value) for key, value in filesystem.info(remote).items()})[:12]
            origin = Path(urlsplit(str(remote)).path)
            local = made_once(downloads / state / origin.name, partial(copy, remote))
            found.append((origin, local))
        return found
    except Exception as error:  # each filesystem brings errors of its own; all mean that the source cannot be read
        raise NightStopped(f"source {source.name}: {source.location} cannot be read: {error}") from error


def bring_from_hub(source: SourceConfig, downloads: Path) -> Path:
    """A Hub dataset as jsonl, `hub:OWNER/NAME[:SPLIT]`."""
    import datasets  # a second of import that a local recipe need not pay

    name, _, split = source.location.removeprefix(HUB).partition(":")
    try:
        rows = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # the Hub client raises many kinds; each means that the source cannot be read
        raise NightStopped(f"source {source.name}: {source.location} cannot be loaded: {error}") from error
    local = downloads / str(rows._fingerprint) / f"{Path(name).name}.jsonl"
    return made_once(local, lambda path: rows.to_json(str(path), force_ascii=False))
