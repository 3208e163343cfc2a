"""How the tracking store is reached, and the two ways in which it fails: it is away, or it refuses."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from tasks.errors import Denied, NightStopped, Refused, StoreAway, without_password
from tasks.services.addresses import EXPERIMENT

REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS")
"""Error codes of a store that understood and will never accept. A proxy before a store that is down sends others."""
DENIALS = ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED")
UNUSABLE = (sqlalchemy.exc.ArgumentError, ImportError)
"""What SQLAlchemy raises for an address that is none, and for one whose database it has no driver for."""
REASON_CHARACTERS = 500
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
        reason = " ".join(str(error).split())[:REASON_CHARACTERS]
        if isinstance(error, MlflowException) and error.error_code in REFUSALS:
            raise Refused(f"the tracking store refused: {reason}") from error
        if isinstance(error, MlflowException) and error.error_code in DENIALS:
            raise Denied(
                f"the tracking store denies access: {reason}; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to an account that may read and write the "
                f"experiment {EXPERIMENT}, and run the same again"
            ) from error
        raise StoreAway(f"the tracking store did not answer: {reason}") from error


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
    with two_errors():
        try:
            within(PROBE_SECONDS, lambda: probe(tracking_uri))
        except UNUSABLE as error:
            raise Refused(
                f"MLFLOW_TRACKING_URI={without_password(tracking_uri)} cannot be used ({error}): set it to the address "
                "of an MLflow server (http://…) or of a database whose driver is installed (for PostgreSQL: "
                "pip install 'nightschool[postgresql]'), or leave it out for a database in the home"
            ) from error
        return MlflowClient(tracking_uri)


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
    return tracking_uri.startswith(("http:", "https:", "databricks"))


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


def experiment_id(client: MlflowClient, artifacts: str | None) -> str:
    """The experiment, made on first use with its artifacts at a URI, or where the server chooses.

    One that a person deleted is restored, with a warning: the versions of the model have their files in it.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))
    number = str(experiment.experiment_id)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(number)
        log.warning(
            "the experiment %s had been deleted in MLflow and is restored with its runs, as registered models have "
            "their files in it; to begin anew, set NIGHTSCHOOL_HOME to a new folder", EXPERIMENT,
        )  # fmt: skip
    return number
