"""SQLite databases of servers appear whole or not at all: made beside their place, upgraded as a copy, then renamed.

Both servers migrate their schema in place and statement by statement. A kill in the middle of that leaves a file that
neither of them ever opens again.
"""

from __future__ import annotations

import ast
import fcntl
import importlib.util
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from model.files import fsync
from tasks.errors import NightStopped, is_passing
from tasks.services.processes import read_services, terminate_with_parent
from tasks.settings import PROJECT, Settings, child_environment, in_the_way, what_it_is

BUSY_SECONDS = 20.0
"""For these a database that another process writes is waited for."""
REASON_CHARACTERS = 600
log = logging.getLogger("nightschool")


@dataclass(frozen=True)
class Server:
    """A server that keeps its state in SQLite, and how its own command brings a schema up to date."""

    name: str
    package: str
    versions: str
    """Folder of the migrations in the package; each file is a revision."""
    command: tuple[str, ...]
    """Of `python -m`: makes the schema in an empty file, or upgrades it. `{path}` is the file."""
    variables: tuple[tuple[str, str], ...] = ()
    """What the command gets in its environment."""
    variable: str = "MLFLOW_TRACKING_URI"
    """The user's, that says where the database is."""

    def upgrade(self, path: Path) -> None:
        """Bring the schema of a file, which may be missing, to the newest revision. Raises NightStopped."""
        words = [word.format(path=path) for word in self.command]
        values = {name: value.format(path=path) for name, value in self.variables}
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=PROJECT, env=child_environment(**values), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, preexec_fn=terminate_with_parent,
        )  # fmt: skip
        if done.returncode:
            reason = " ".join((done.stderr or done.stdout).split())[-REASON_CHARACTERS:]
            raise NightStopped(f"`python -m {' '.join(words)}` failed: {reason}")
        settle(path)


MLFLOW = Server(
    "MLflow", "mlflow", "store/db_migrations/versions", ("mlflow", "db", "upgrade", "sqlite:///{path}")
)  # fmt: skip
PREFECT = Server(
    "Prefect", "prefect", "server/database/_migrations/versions/sqlite",
    ("prefect", "server", "database", "upgrade", "--yes"),
    (("PREFECT_SERVER_DATABASE_CONNECTION_URL", "sqlite+aiosqlite:///{path}"),), "NIGHTSCHOOL_HOME",
)  # fmt: skip


def make_whole(path: Path, server: Server) -> None:
    """Make the database of a server if it is missing or half-made, upgrade it if it is old, leave it if it is whole.

    A half-made one holds no rows beyond those of a new one: nothing is lost with it. Raises NightStopped if it is the
    database of a newer server, in use, damaged, or half-upgraded with rows in it; it is left as it is then; and if
    no file can be made there.
    """
    if revision(path) in heads(server):
        return
    with only_one(path, server):
        found = revision(path)
        if found in heads(server):
            return
        beside = path.with_name(f".{path.name}.partial")
        discard(beside)
        try:
            if rows(path):
                replace(path, beside, server, found)
            else:
                log.info("%s's database is made, once: %s", server.name, path)
                server.upgrade(beside)
            put_in_place(beside, path)
        finally:
            discard(beside)


def replace(path: Path, beside: Path, server: Server, found: str) -> None:
    """Write what belongs in the place of a database of another revision: a new one if it held nothing, else a copy.

    found: its revision, or an empty string.
    """
    if found and found not in revisions(server):
        raise NightStopped(
            f"{server.name}'s database {path} was written by a newer {server.name} (schema {found}); install that one, "
            "or move the file away to begin with an empty one"
        )
    server.upgrade(beside)
    new = rows(beside)
    more = {table: count for table, count in rows(path).items() if count > new.get(table, 0)}
    if not more:
        log.warning(
            "%s's database %s was half-made by a run that was killed (schema %s); it held nothing and is made anew",
            server.name, path, found or "without a revision",
        )  # fmt: skip
        return
    if running := [service.name for service in read_services(Settings.load().home)]:
        raise NightStopped(
            f"{server.name}'s database {path} has schema {found or 'without a revision'} and must be upgraded, which "
            f"what runs must not see ({', '.join(running)}): make down, and run the same again"
        )
    discard(beside)
    with readable(path) as old, closing(opened(beside)) as copy:
        old.backup(copy)
    try:
        server.upgrade(beside)
    except NightStopped as error:
        raise NightStopped(
            f"{server.name}'s database {path} has schema {found or 'without a revision'}, holds {sum(more.values())} "
            "rows and cannot be upgraded; it is left as it was. Put a copy from a backup there, or move it away to "
            f"begin with an empty one. {error}"
        ) from None
    log.warning("%s's database %s was upgraded from schema %s", server.name, path, found)


@cache
def revisions(server: Server) -> dict[str, tuple[str, ...]]:
    """Every revision that the installed server knows, and those it follows. Read from its files, as importing takes
    seconds."""
    found = importlib.util.find_spec(server.package)
    if found is None or found.origin is None:
        raise NightStopped(f"{server.name} is not installed; run make run, which installs what is missing")
    known: dict[str, tuple[str, ...]] = {}
    for path in sorted((Path(found.origin).parent / server.versions).glob("*.py")):
        values = assigned(ast.parse(path.read_text(encoding="utf-8")))
        if "revision" in values:
            before = values.get("down_revision") or ()
            known[str(values["revision"])] = (before,) if isinstance(before, str) else tuple(map(str, before))
    return known


def assigned(tree: ast.Module) -> dict[str, str | tuple[str, ...] | None]:
    """`revision` and `down_revision` of a migration."""
    values: dict[str, str | tuple[str, ...] | None] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {target.id for target in targets if isinstance(target, ast.Name)}
            for name in names & {"revision", "down_revision"}:
                values[name] = ast.literal_eval(node.value)
    return values


def heads(server: Server) -> set[str]:
    """Revisions that none follows; of the servers here there is one each."""
    known = revisions(server)
    return set(known) - {before for all_before in known.values() for before in all_before}


def opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_SECONDS)


@contextmanager
def readable(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a file that is there. Raises NightStopped if it is damaged, in use, or a folder."""
    if path.is_dir():
        raise NightStopped(f"the database {path} cannot be read: it is a folder; name a file")
    try:
        with closing(opened(path)) as connection:
            yield connection
    except sqlite3.Error as error:
        cure = "stop what uses it" if "locked" in str(error) else "put a copy from a backup there, or move it away"
        raise NightStopped(f"the database {path} cannot be read ({error}); {cure}, and run the same again") from None


def revision(path: Path) -> str:
    """The schema's revision, or an empty string if there is none."""
    if not os.access(path, os.F_OK):  # unlike Path.exists it says so of a folder that may not be looked into, too
        return ""
    with readable(path) as connection:
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if there else None
    return str(row[0]) if row else ""


def rows(path: Path) -> dict[str, int]:
    """The number of rows of each table; empty if there is no file, or no table in it."""
    if not path.exists():
        return {}
    with readable(path) as connection:
        named = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        tables = [str(name) for (name,) in named if not name.startswith("alembic_")]
        return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}


def settle(path: Path) -> None:
    """Put everything that belongs to a database into its one file. Raises NightStopped if it is in use."""
    with readable(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()


def put_in_place(beside: Path, path: Path) -> None:
    """Rename a finished database to its place; no journal of the one that lay there may be taken for its own."""
    if path.exists():
        settle(path)
    fsync(beside)
    beside.replace(path)
    fsync(path.parent)


def discard(beside: Path) -> None:
    """Remove an unfinished database and its journals."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        beside.with_name(beside.name + suffix).unlink(missing_ok=True)


@contextmanager
def only_one(path: Path, server: Server) -> Iterator[None]:
    """Hold off other processes that would make the same database. Raises NightStopped if no file can be made there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened_lock = path.with_name(f".{path.name}.lock").open("a")
    except OSError as error:
        if is_passing(error):
            raise
        reason = f"{blocker} is {what_it_is(blocker)}" if (blocker := in_the_way(path.parent)) else error.strerror
        raise NightStopped(
            f"{server.name}'s database {path} cannot be made ({reason}); set {server.variable} so that it lies in a "
            "folder where this user can make files"
        ) from error
    with opened_lock as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
