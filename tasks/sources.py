"""From a source's location to files on this machine, with the digest of their bytes."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import fsspec

from model.files import sha256_of
from tasks.artifacts import digest_of
from tasks.corpus import MAKERS, build_corpus
from tasks.errors import NightStopped
from tasks.recipe import SourceConfig

BUILTIN, HUB = "builtin:", "hub:"


@dataclass(frozen=True)
class SourceFile:
    """One raw file of a source."""

    source: SourceConfig
    path: Path
    label: str
    """What reports call it: the file's name, not where this machine keeps it."""
    digest: str


def resolve(sources: Sequence[SourceConfig], home: Path) -> list[SourceFile]:
    """All files of all sources, in a fixed order. Raises NightStopped for a source without a file."""
    files = []
    for source in sources:
        paths = locate(source, home)
        if not paths:
            raise NightStopped(f"source {source.name}: nothing found at {source.location}")
        files += [SourceFile(source, path, f"{source.name}/{path.name}", sha256_of(path)) for path in paths]
    return files


def locate(source: SourceConfig, home: Path) -> list[Path]:
    """Files of one source; what is remote is brought under the home first."""
    location = source.location
    if location.startswith(BUILTIN):
        name = location.removeprefix(BUILTIN)
        if name not in MAKERS:
            raise NightStopped(f"source {source.name}: no built-in {name!r}, there are {', '.join(MAKERS)}")
        return [build_corpus(home) / f"{name}.jsonl"]
    downloads = home / "downloads"
    if location.startswith(HUB):
        return [bring_from_hub(source, downloads)]
    if "://" in location:
        return bring_remote(source, downloads)
    path = Path(location).expanduser().absolute()
    if path.is_file() or not glob.has_magic(location):
        return [path] if path.is_file() else []
    return sorted(found for found in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if found.is_file())


def bring_remote(source: SourceConfig, downloads: Path) -> list[Path]:
    """Copy files of an fsspec address, unless the copy here is of the same remote state."""
    try:
        filesystem, pattern = fsspec.core.url_to_fs(source.location)
        remotes = sorted(filesystem.glob(pattern)) if glob.has_magic(pattern) else [pattern]
        found = []
        for remote in remotes:
            # `info` holds what the remote says of its state (ETag, date, size); `ukey` of http is the address alone.
            state = digest_of({key: str(value) for key, value in filesystem.info(remote).items()})[:12]
            local = downloads / source.name / state / Path(urlsplit(str(remote)).path).name
            if not local.exists():
                local.parent.mkdir(parents=True, exist_ok=True)
                beside = local.with_name(f"{local.name}.partial")
                with filesystem.open(remote, "rb", compression=None) as reader, beside.open("wb") as writer:
                    shutil.copyfileobj(reader, writer)
                beside.rename(local)
            found.append(local)
        return found
    except Exception as error:  # each filesystem brings errors of its own; all mean that the source is not to be had
        raise NightStopped(f"source {source.name}: {source.location} cannot be read: {error}") from error


def bring_from_hub(source: SourceConfig, downloads: Path) -> Path:
    """A Hub dataset as jsonl, `hub:OWNER/NAME[:SPLIT]`."""
    import datasets  # a second of import that a local recipe need not pay

    name, _, split = source.location.removeprefix(HUB).partition(":")
    try:
        rows = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # the Hub client raises many kinds; each means that the source is not to be had
        raise NightStopped(f"source {source.name}: {source.location} cannot be loaded: {error}") from error
    local = downloads / source.name / str(rows._fingerprint) / f"{Path(name).name}.jsonl"
    if not local.exists():
        local.parent.mkdir(parents=True, exist_ok=True)
        beside = local.with_name(f"{local.name}.partial")
        rows.to_json(str(beside), force_ascii=False)
        beside.rename(local)
    return local
