"""Rows of Prefect's own database that are old, and room that a database of SQLite gives back to the disk."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

log = logging.getLogger("nightschool")
BUSY_SECONDS = 5.0
ROWS_AT_ONCE = 500
FREE_SHARE, FREE_BYTES = 0.25, 4 << 20
"""A database is written anew when so much of it is free, and at least so many bytes: each time at most four times what
was freed is written, so the cost follows what nights add."""
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
OLD_RUNS = f"end_time < ? AND state_type IN {ENDED}"
OF_NO_RUN = "flow_run_id IS NOT NULL AND flow_run_id NOT IN (SELECT id FROM flow_run)"
PREFECT_ROWS = (
    ("flow_run", OLD_RUNS),
    ("log", f"timestamp < ? AND {OF_NO_RUN}"),
    ("artifact", f"created < ? AND {OF_NO_RUN} AND id NOT IN (SELECT latest_id FROM artifact_collection)"),
    ("event_resources", "occurred < ?"),
    ("events", "occurred < ?"),
)
"""Tables, and which of their rows go, by a time. Stages, their states and inputs go with their flow run; the newest
artifact of a key stays, as Prefect's pages show it."""


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        yield connection


def old_prefect_rows(path: Path, days: float) -> dict[str, int]:
    """How many rows of each table are older than so many days."""
    before = time_before(days)
    with opened(path) as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table} WHERE {old}", (before,)).fetchone()[0]
            for table, old in PREFECT_ROWS
        }


def remove_prefect_rows(path: Path, days: float) -> int:
    """Delete flow runs that ended so many days ago, with what belongs to them, and events as old; returns the number
    of rows, without those that go with others. A server may use the file meanwhile: each write is a short one."""
    before, removed = time_before(days), 0
    with opened(path) as connection:
        for table, old in PREFECT_ROWS:
            some = f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {old} LIMIT {ROWS_AT_ONCE})"
            while count := connection.execute(some, (before,)).rowcount:
                removed += count
    return removed


def time_before(days: float) -> str:
    """As Prefect writes times into SQLite: UTC, without a zone."""
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S.%f")


def give_room_back(path: Path) -> int:
    """Write a database anew if much of it is free; returns the bytes that this gave back.

    One that is in use, or a disk without room for a second copy, leaves it for the next time, with a word.
    """
    with opened(path) as connection:
        page, pages, free = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        if free * page < max(FREE_BYTES, FREE_SHARE * pages * page):
            return 0
        room = shutil.disk_usage(path.parent).free
        if room < 2 * pages * page:
            log.warning(
                "%s holds %d free bytes, which are not given back: writing it anew takes %d bytes, the disk has %d",
                path, free * page, 2 * pages * page, room,
            )  # fmt: skip
            return 0
        before = path.stat().st_size
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            log.warning("%s is in use (%s); its %d free bytes are given back another time", path, error, free * page)
            return 0
    return max(0, before - path.stat().st_size)
