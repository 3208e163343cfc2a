"""How the tracking store is reached, and the two ways in which it fails: it is away, or it refuses."""

from __future__ import annotations

import importlib.util
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import gaierror
from textwrap import shorten
from typing import TypeVar
from urllib.parse import urlsplit

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from tasks.errors import Denied, NightStopped, Refused, StoreAway, without_password
from tasks.services.addresses import EXPERIMENT

REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS")
"""Error codes of a store that understood and will never accept. A proxy before a store that is down sends others."""
DENIALS = ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED")
REASON_CHARACTERS = 500
DEFAULT_EXPERIMENT = "0"
"""Id of the experiment that MLflow makes itself in a new database."""
MLRUNS = f"mlruns/{DEFAULT_EXPERIMENT}"
"""Where its artifacts go, from the folder that is current then."""
PROBE_SECONDS = 5.0
"""So long a store may take for its first answer, or for the one after a failure, before it counts as away."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 300.0
log = logging.getLogger("nightschool")
T = TypeVar("T")


class Pause:
    """How long a store that did not answer is left alone: 30 s at first, then twice as long each time, up to 5 min."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = 0.0
        self._until = -math.inf

    @property
    def begun(self) -> bool:
        """Whether the last try failed, lately or not."""
        return bool(self._seconds)

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._until - self._clock())

    def begin(self) -> bool:
        """Note that the store did not answer; returns whether this is news."""
        news = not self.begun
        self._seconds = min(2 * self._seconds or FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._until = self._clock() + self._seconds
        return news

    def end(self) -> bool:
        """Note that the store answered; returns whether this is news."""
        news = self.begun
        self._seconds, self._until = 0.0, -math.inf
        return news


@contextmanager
def two_errors() -> Iterator[None]:
    """Turn errors of the store into StoreAway or Refused.

    MLflow lets through what its database drivers, HTTP library and artifact stores raise, which have no common type.
    """
    try:
        yield
    except NightStopped:
        raise
    except Exception as error:
        reason = shorten(str(error), REASON_CHARACTERS, placeholder=" …")
        if isinstance(error, MlflowException) and error.error_code in REFUSALS:
            raise Refused(f"the tracking store refused: {reason}") from error
        if isinstance(error, MlflowException) and error.error_code in DENIALS:
            raise Denied(
                f"the tracking store denies access: {reason}; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to an account that may read and write the "
                f"experiment {EXPERIMENT}, and run the same again"
            ) from error
        raise StoreAway(f"the tracking store did not answer: {why_silent(error)}") from error


def why_silent(error: BaseException) -> str:
    """Why no answer came: what the network said, if libraries have wrapped that, else the error's own words."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ConnectionError | TimeoutError | gaierror) and str(inner):
            return shorten((inner.strerror or str(inner)).lower(), REASON_CHARACTERS, placeholder=" …")
        inner = inner.__cause__ or inner.__context__
    said = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    return shorten(str(said), REASON_CHARACTERS, placeholder=" …")


def known(ask: Callable[..., T], *arguments: str) -> T | None:
    """The store's answer, None if it knows no such thing. A store that is away is not one that does not know.

    Raises StoreAway then: a night that took silence for "there is no champion" would promote anything.
    """
    try:
        with two_errors():
            return ask(*arguments)
    except Refused:
        return None


def is_open(client: MlflowClient, mlflow_id: str) -> bool:
    """Whether a run can be reported to: it exists and nobody deleted it."""
    run: Run | None = known(client.get_run, mlflow_id)
    return run is not None and run.info.lifecycle_stage == "active"


def connect(tracking_uri: str) -> MlflowClient:
    """A client of the store, once it has answered. Raises StoreAway, Denied, and Refused for an unusable address.

    MLflow asks a database that is away ten times, over minutes, before it gives up, and waits long for a server that
    accepts a request and says nothing; so the store is asked once before, for PROBE_SECONDS at most.
    """
    if reason := why_unusable(tracking_uri):
        raise Refused(
            f"MLFLOW_TRACKING_URI={without_password(tracking_uri)} cannot be used, as {reason}: set it to the address "
            "of an MLflow server (http://…) or of a database whose driver is installed (for PostgreSQL: "
            "pip install 'nightschool[postgresql]'), or leave it out for a database in the home"
        )
    with two_errors():
        within(PROBE_SECONDS, lambda: probe(tracking_uri))
        return MlflowClient(tracking_uri)


def why_unusable(tracking_uri: str) -> str:
    """Why nothing can ever answer at an address, whatever runs there; empty if something may. Nothing is asked."""
    if is_server(tracking_uri):
        return why_no_server(tracking_uri)
    if tracking_uri.startswith("databricks"):
        return f"Databricks names an experiment by a path in its workspace, and this one is called {EXPERIMENT}"
    try:
        url = sqlalchemy.make_url(tracking_uri)
        sqlalchemy.create_engine(url).dispose()
    except ImportError as error:
        return f"{error.name}, its driver, is not installed"
    except sqlalchemy.exc.NoSuchModuleError:
        return f"{url.drivername}: is neither a server nor a database that is known here"
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return "it is neither the address of a server nor of a database"
    if url.drivername.startswith("sqlite") and url.database in (None, "", ":memory:"):
        return "a database in memory is gone with the process"
    return ""


def why_no_server(address: str) -> str:
    """Why an HTTP address is none; empty if it is one."""
    try:
        parsed = urlsplit(address)
    except ValueError:
        return "it is no address"
    if not parsed.hostname:
        return "it names no host"
    try:
        _ = parsed.port
    except ValueError:
        return "its port is no number from 0 to 65535"
    return "" if len(address.split()) == 1 else "there is a space in it"


def probe(tracking_uri: str) -> None:
    """Have a store answer a question; a database is not changed by it, nor its tables made."""
    if is_server(tracking_uri):
        MlflowClient(tracking_uri).get_experiment_by_name(EXPERIMENT)
        return
    if tracking_uri.startswith("sqlite:///"):
        Path(tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(tracking_uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def is_server(tracking_uri: str) -> bool:
    """Whether artifacts go where a server decides; else MLflow writes them from here, beside a database."""
    return tracking_uri.startswith(("http:", "https:"))


def within(seconds: float, work: Callable[[], None]) -> None:
    """Do some work, and raise its error; TimeoutError if it takes longer, and then it goes on in vain."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="probe", daemon=True)  # the process does not wait for one that hangs
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")
    if errors:
        raise errors[0]


def require_driver(artifacts: str) -> None:
    """Raise Refused if what MLflow writes to an address of artifacts with is not installed."""
    if artifacts.startswith("s3:") and importlib.util.find_spec("boto3") is None:
        raise Refused(
            f"artifacts go to {artifacts:.200}, and boto3, with which MLflow writes there, is not installed: "
            "pip install 'nightschool[s3]'"
        )


def experiment_id(client: MlflowClient, artifacts: str | None) -> str:
    """The experiment, made on first use with its artifacts at a URI, or where the server chooses.

    One that a person deleted is restored, with a warning: the versions of the model have their files in it.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return experiment_id(client, artifacts)  # another night made it meanwhile
    number = str(experiment.experiment_id)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(number)
        log.warning(
            "the experiment %s had been deleted in MLflow and is restored with its runs, as registered models have "
            "their files in it; to begin anew, set NIGHTSCHOOL_HOME to a new folder", EXPERIMENT,
        )  # fmt: skip
    return number


def keep_default_inside(
    client: MlflowClient, tracking_uri: str, artifacts: str | None, home: Path, folders: Sequence[Path]
) -> None:
    """Have the artifacts of MLflow's own experiment, `Default`, go below a URI.

    Whoever opens a new database first makes that experiment, with its artifacts in the current folder; then that is a
    folder of the project, where they would be committed or cleaned away. In a database that others use too, only an
    address that a process of ours made, in one of these `folders`, is changed. A server decides by itself.
    """
    if is_server(tracking_uri) or artifacts is None:
        return
    own_database = tracking_uri.startswith(f"sqlite:///{home}/")
    default = known(client.get_experiment, DEFAULT_EXPERIMENT)
    place = str(default.artifact_location) if default else ""
    ours = {f"{folder}/{MLRUNS}" for folder in folders}
    if not (place in ours or (own_database and place.startswith("/") and place.endswith(f"/{MLRUNS}"))):
        return
    engine = sqlalchemy.create_engine(tracking_uri)
    table = sqlalchemy.table("experiments", *map(sqlalchemy.column, ("experiment_id", "artifact_location")))
    change = table.update().where(table.c.experiment_id == int(DEFAULT_EXPERIMENT), table.c.artifact_location == place)
    try:
        with engine.begin() as connection:
            connection.execute(change.values(artifact_location=f"{artifacts}/{DEFAULT_EXPERIMENT}"))
    finally:
        engine.dispose()
    if Path(place).exists():
        log.warning(
            "artifacts of MLflow's experiment Default went to %s and go to %s/%s now; what lies there stays there",
            place, artifacts, DEFAULT_EXPERIMENT,
        )  # fmt: skip
