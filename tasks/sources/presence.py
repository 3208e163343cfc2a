"""Whether a recipe's sources are there, looked at without reading, fetching or making anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.pages.text import format_bytes, plural
from tasks.recipes.stage_configs import HUB, SourceConfig
from tasks.sources.builtin import MAKERS
from tasks.sources.resolve import BUILTIN, locate, nothing_found


def look_at_sources(sources: Sequence[SourceConfig], home: Path) -> Iterator[tuple[SourceConfig, str, bool]]:
    """For each source what is there, and whether a night would find nothing. What is remote is not looked at."""
    for source in sources:
        yield source, *presence_of(source, home)


def presence_of(source: SourceConfig, home: Path) -> tuple[str, bool]:
    """What is there of a source, for people, and whether it is nothing."""
    location = source.location
    if location.startswith(BUILTIN):
        known = location.removeprefix(BUILTIN) in MAKERS
        return "built in" if known else f"nothing found: there is no {location}", not known
    if location.startswith(HUB) or "://" in location:
        return f"{location} (remote, not looked at)", False
    files = [path for _, path in locate(source, home)]
    if not files:
        return nothing_found(location), True
    num_bytes = sum(path.stat().st_size for path in files if path.is_file())
    return f"{plural(len(files), 'file')}, {format_bytes(num_bytes)}", False
