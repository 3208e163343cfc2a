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
from tasks.home.code import code_version
from tasks.home.digests import digest_of
from tasks.recipes.stage_configs import HUB, SourceConfig
from tasks.sources.tables import TABLE_ROWS, lines_of


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
    version = code_version("tasks.sources.tables")[:8]  # lines of another version are not taken for those of this one
    local = downloads / f"{rows._fingerprint}-{version}" / f"{Path(name).name}.jsonl"

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            for table in rows.with_format("arrow").iter(TABLE_ROWS):
                stream.writelines(line for batch in table.to_batches() for line in lines_of(batch))

    return made_once(local, write)
