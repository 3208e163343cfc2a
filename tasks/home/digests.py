"""Digests of configuration values, and files: what stage keys are made of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from model.files import sha256_of


def plain(value: object) -> object:
    """A configuration value as JSON types; refuses what has no stable text form."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a {type(value).__name__} has no stable digest; put a string or a number into the configuration")


def digest_of(value: object) -> str:
    """SHA-256 of a configuration value, independent of key order."""
    text = json.dumps(plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def digest_files(files: Iterable[tuple[str, Path]]) -> str:
    """One digest for named files."""
    return digest_of({name: sha256_of(path) for name, path in files})
