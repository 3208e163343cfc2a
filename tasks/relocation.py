"""A home that was moved or copied: before it is used, its stores are made to name the place where it is now."""

from __future__ import annotations

import fcntl
import json
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from model.files import write_json
from tasks.errors import NightStopped, without_password
from tasks.settings import Settings

NOTE, LOCK = "home.json", "home.lock"
ARTIFACTS = "/mlflow/artifacts"
"""Where below a home its artifacts lie, as its database says it at the end of a URI."""
log = logging.getLogger("nightschool")


def relocate(settings: Settings) -> None:
    """If the home lies elsewhere than it did when it was last used, change what its stores say about that.

    MLflow keeps absolute addresses of artifacts and registered models: a copy would write into the original. Raises
    NightStopped if the home's own database cannot be changed. What a tracking server or a database elsewhere keeps for
    the original too is left alone, with a warning.
    """
    home = settings.home
    if not home.is_dir() or ((noted := places(home)) and is_same(noted[0], home)):
        return
    with (home / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # nights that begin at once come here before one of them has the lease
        look_where_it_lies(settings)


def is_same(before: Path, home: Path) -> bool:
    return before == home or (before.exists() and before.samefile(home))


def look_where_it_lies(settings: Settings) -> None:
    """What `relocate` does, one process at a time."""
    home, uri = settings.home, settings.tracking_uri
    own, noted = home / "mlflow" / "mlflow.db", places(home)
    before = noted[0] if noted else place_in(own)
    if before is None or is_same(before, home):
        if not noted:
            write_json(home / NOTE, {"places": [str(home)]})
        return
    changed = renamed(f"sqlite:///{own}", before, home) if own.exists() else 0
    log.warning("this home was %s and is %s now; changed in its database: %s", before, home, told(changed))
    if not settings.has_own_database:
        tell_of_shared_store(uri, before, home)
    services = home / "services" / "services.json"
    if services.exists():
        log.warning("services that run for %s are not this home's; start its own with: make up", before)
        services.unlink()
    write_json(home / NOTE, {"places": [str(place) for place in dict.fromkeys([home, before, *noted])]})


def told(addresses: int) -> str:
    return f"{addresses:,} address{'' if addresses == 1 else 'es'}"


def tell_of_shared_store(tracking_uri: str, before: Path, home: Path) -> None:
    """A store outside the home: addresses in a database follow a home that was moved, never one that was copied."""
    shown = without_password(tracking_uri)
    if tracking_uri.startswith("http"):
        log.warning("the tracking server %s is left as it is; every copy of the home reports to it", shown)
    elif before.exists():
        log.warning(
            "%s serves %s too and is left as it is: artifacts go where it says; set MLFLOW_TRACKING_URI to a database "
            "of this home's own to part them", shown, before,
        )  # fmt: skip
    else:
        log.warning("%s: changed below %s: %s", shown, before, told(renamed(tracking_uri, before, home)))


def places(home: Path) -> Sequence[Path]:
    """Where the home has been, the newest first; nothing is known of one that was made by an earlier version."""
    try:
        return [Path(place) for place in json.loads((home / NOTE).read_text(encoding="utf-8"))["places"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def place_in(database: Path) -> Path | None:
    """The home that a database of an earlier version was made in, by the address of its artifacts."""
    if not database.exists():
        return None
    query = f"SELECT artifact_location FROM experiments WHERE artifact_location LIKE 'file:%{ARTIFACTS}'"
    try:
        connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
        try:
            row = connection.execute(query).fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        return None  # whoever opens it to write says what is wrong with it
    return Path(unquote(urlsplit(row[0]).path.removesuffix(ARTIFACTS))) if row else None


def renamed(database_uri: str, before: Path, home: Path) -> int:
    """Replace addresses below one folder by those below another in all texts of a database, in one transaction.

    Returns the number of changed values. Raises NightStopped if the database cannot be changed.
    """
    import sqlalchemy  # takes a while to import, and a home is moved rarely

    old, new, changed = f"{before.as_uri()}/", f"{home.as_uri()}/", 0
    engine = sqlalchemy.create_engine(database_uri)
    try:
        with engine.begin() as connection:
            inspector = sqlalchemy.inspect(connection)
            for name in inspector.get_table_names():
                keys = set(inspector.get_pk_constraint(name)["constrained_columns"])
                for described in inspector.get_columns(name):
                    if described["name"] in keys or not isinstance(described["type"], sqlalchemy.String):
                        continue
                    column: sqlalchemy.ColumnClause[str] = sqlalchemy.column(described["name"])
                    update = sqlalchemy.update(sqlalchemy.table(name, column))
                    below = update.where(column.contains(old, autoescape=True))
                    changed += connection.execute(
                        below.values({column: sqlalchemy.func.replace(column, old, new)})
                    ).rowcount
                    changed += connection.execute(
                        update.where(column == str(before)).values({column: str(home)})
                    ).rowcount
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = " ".join(str(error).split())[:300]
        raise NightStopped(
            f"this home was {before} and is {home} now, but {without_password(database_uri)} still names the old place "
            f"and cannot be changed: {reason}; stop what uses it, check that it can be written, and run the same again"
        ) from error
    finally:
        engine.dispose()
    return changed
