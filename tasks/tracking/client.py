"""How the tracking store is reached, and the two ways in which it fails: it is away, or it refuses."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tasks.errors import NightStopped, StoreAway

EXPERIMENT = "nightschool"
REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS")
"""Error codes of a store that understood and will never accept. A proxy before a store that is down sends others."""
REASON_CHARACTERS = 500
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 300.0
T = TypeVar("T")


class Refused(NightStopped):
    """The tracking store answered, and does not accept this."""


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


def connect(tracking_uri: str) -> MlflowClient:
    """A client of the store. Raises StoreAway.

    MLflow asks a database that is away ten times, over minutes, before it gives up; so it is asked once before.
    """
    with two_errors():
        if not tracking_uri.startswith("http"):
            engine = sqlalchemy.create_engine(tracking_uri)
            try:
                engine.connect().close()
            finally:
                engine.dispose()
        return MlflowClient(tracking_uri)


def experiment_id(client: MlflowClient, artifacts: str | None) -> str:
    """The experiment, made on first use with its artifacts at a URI, or where the server chooses."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment:
        return str(experiment.experiment_id)
    return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))
