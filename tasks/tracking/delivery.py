"""Delivery of the spool: the calls of each run in order, and each with the effect of one, however often it is cut.

Parameters, tags, datasets and artifacts can be sent twice as they are. MLflow takes two metric points of one run with
equal name, step, value and time for one, so the time is that of the call. A run that the store created, though its
answer was lost, is identified by a tag.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from tasks.errors import NightStopped, Refused, StoreAway, without_password
from tasks.home.digests import digest_of
from tasks.pages.text import plural
from tasks.settings import Settings
from tasks.tracking.client import Pause, connect, experiment_id, is_open, is_server, require_driver, two_errors
from tasks.tracking.nights_view import show_nights
from tasks.tracking.points import LOAD_SAMPLED, batches, curve_points, log_points, newest_step, points_of
from tasks.tracking.sending import send_artifact, send_dataset, send_model
from tasks.tracking.spool import REFUSED, Call, Spool

SPOOL_ID = "nightschool.spool_id"
"""Tag of every run: the id under which it was asked for."""
HOME = "nightschool.home"
"""Tag of every run: the folder of the home that it is of, several of which may report to one server."""
BATCH_POINTS = 500
DELIVERY_SECONDS = 2.0
"""After these a delivery in the middle of training stops: the rest of a long spool waits for the end of the stage."""
log = logging.getLogger("nightschool")
T = TypeVar("T")


@dataclass(frozen=True)
class Delivery:
    """What a delivery did, in calls."""

    delivered: int
    waiting: int


class Outbox:
    """The spool of one store and its delivery.

    Every call to the store is bounded by MLflow's own time-out, and none follows a failure before a pause is over,
    except at `deliver`: so a stage waits for a time-out and then goes on without the store. A run that cannot be
    delivered though the store answers, for instance as its artifacts lie elsewhere, has a pause of its own.
    """

    def __init__(
        self,
        tracking_uri: str,
        home: Path,
        clock: Callable[[], float] = time.monotonic,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """prepare: done once before the store is connected to, such as making its database."""
        self.tracking_uri = tracking_uri
        self.spool = Spool(spool_folder(tracking_uri, home, home))
        self.home = home
        self._clock = clock
        self._prepare = prepare
        self._pause = Pause(clock)
        self._run_pauses: defaultdict[str, Pause] = defaultdict(lambda: Pause(clock))
        self._client: MlflowClient | None = None
        self._answered = False
        self._lost: set[str] = set()
        """Runs that a person deleted, of which it was said."""

    def client(self) -> MlflowClient:
        """Raises StoreAway if there is none yet and the store does not answer, and what `prepare` raises."""
        if self._client is None:
            try:
                with two_errors():
                    self._prepare()
            except NightStopped as stop:
                if self._answered:  # its disk went away: that ends no night that began
                    raise StoreAway(str(stop)) from stop
                raise
            self._client = connect(self.tracking_uri)
            self._answered = True
        return self._client

    def ask(self, question: Callable[[MlflowClient], T]) -> T:
        """The store's answer. Raises StoreAway, at once if the store lately did not answer, and Refused."""
        if self._pause.seconds_left:
            raise StoreAway(f"the tracking store did not answer; next try in {self._pause.seconds_left:.0f} s")
        return self._ask_now(question)

    def _ask_now(self, question: Callable[[MlflowClient], T]) -> T:
        try:
            answer = self.call(question)
        except StoreAway as error:
            if self._pause.begin():
                log.warning(
                    "%s (%s); what the night reports (%s so far) waits in %s and is delivered when the store answers, "
                    "or by the next night", error, without_password(self.tracking_uri),
                    plural(self.spool.waiting(), "call"), self.spool.folder,
                )  # fmt: skip
            raise
        if self._pause.end():
            log.info("the tracking store answers again")
        return answer

    def call(self, question: Callable[[MlflowClient], T]) -> T:
        """The store's answer, whatever came before. Raises StoreAway, and then the store is probed first next time."""
        try:
            with two_errors():
                return question(self.client())
        except StoreAway:
            self._client = None
            raise

    def _answers(self) -> bool:
        try:
            self._ask_now(self.experiment_id)
        except StoreAway:
            return False
        return True

    def experiment_id(self, client: MlflowClient) -> str:
        return experiment_id(client, self.artifacts)

    @property
    def artifacts(self) -> str | None:
        """Where a new experiment's artifacts go: where a setting says, else with a database under the home."""
        beside = None if is_server(self.tracking_uri) else (self.home / "mlflow" / "artifacts").as_uri()
        return Settings.load().artifacts or beside

    def check(self, client: MlflowClient) -> None:
        """Find or make the experiment, whose pages begin with the nights. Warns if its artifacts go where they would
        not go now; raises Refused if nothing here can write there."""
        experiment = self.experiment_id(client)
        show_nights(client, experiment)
        require_driver(there := client.get_experiment(experiment).artifact_location)
        if self.artifacts and there != self.artifacts:
            log.warning(
                "the experiment was made with its artifacts in %s, and they go there, not to %s: MLflow keeps that "
                "address; to change it, name another database in MLFLOW_TRACKING_URI", there, self.artifacts,
            )  # fmt: skip

    def address_of(self, path: Path) -> str:
        """Where a folder is: by its path in the home, which may move before it is told, or by its URI."""
        return path.relative_to(self.home).as_posix() if path.is_relative_to(self.home) else path.as_uri()

    def deliver(self) -> Delivery:
        """Send all that waits, pause or not."""
        before = self.spool.waiting()
        self._deliver(self.spool.runs(), math.inf)
        for run_id in self.spool.runs():
            self.spool.flush(run_id)
        waiting = self.spool.waiting()
        return Delivery(before - waiting, waiting)

    def deliver_run(self, run_id: str) -> None:
        """Send what waits of a run, unless the store lately did not answer; about two seconds at most.

        What still waits then is on the disk.
        """
        if not self._pause.seconds_left and not self._run_pauses[run_id].seconds_left:
            self._deliver([run_id], DELIVERY_SECONDS)
        self.spool.flush(run_id)

    def delivered_id(self, run_id: str) -> str:
        """A run's id in MLflow after all of it is delivered. Raises StoreAway if something of it waits."""
        self.deliver()
        if waiting := self.spool.waiting(run_id):
            raise StoreAway(
                f"the tracking store did not answer: of run {run_id} wait {plural(waiting, 'call')} in "
                f"{self.spool.folder}; when the store is back, run the same command again"
            )
        return self.spool.resolve(run_id)

    def start_run(self, run_id: str, creation: Call) -> str:
        """Make a run at once and return its id in MLflow. Raises StoreAway and Refused."""
        with self.spool.delivering():
            return self.ask(lambda _: self._create(run_id, creation, asked_before=False))

    def _deliver(self, run_ids: Sequence[str], seconds: float) -> None:
        """Deliver runs one after the other until the store does not answer; one that fails does not stop the others."""
        deadline = self._clock() + seconds
        with self.spool.delivering():
            if self._pause.begun and not self._answers():
                return
            for run_id in run_ids:
                pause = self._run_pauses[run_id]
                try:
                    self._deliver_run(run_id, deadline)
                    pause.end()
                except StoreAway as error:
                    if not self._answers():
                        return
                    if pause.begin():
                        log.warning(
                            "%s; of run %s wait %s in %s, to be delivered with what the run reports later, "
                            "or by the next night", error, run_id,
                            plural(self.spool.waiting(run_id), "call"), self.spool.folder,
                        )  # fmt: skip

    def _deliver_run(self, run_id: str, deadline: float = math.inf) -> None:
        for batch in batches(self.spool.pending(run_id), BATCH_POINTS):
            self._send_or_set_aside(run_id, batch)
            last = batch[-1]
            self.spool.delivered(run_id, last, closed=last.kind == "close" and last.values["status"] != "RUNNING")
            if self._clock() > deadline:
                return
        self.spool.remove_if_done(run_id)

    def _send_or_set_aside(self, run_id: str, batch: Sequence[Call]) -> None:
        """Send calls; those that the store refuses are kept beside the spool, and do not stop those after them."""
        try:
            self.call(lambda client: self._send(client, run_id, batch))
        except Refused as refusal:
            there = self._is_there(run_id)
            if not there and self.call(self.experiment_id) and self._is_there(run_id):  # its experiment was restored
                self._send_or_set_aside(run_id, batch)
                return
            if len(batch) > 1 and there:
                for call in batch:
                    self._send_or_set_aside(run_id, [call])
                return
            for call in batch:
                self.spool.set_aside(run_id, call, str(refusal))
            if run_id in self._lost:
                return
            if not there:
                self._lost.add(run_id)
            log.warning(
                "%s; of run %s, %s (%s) kept in %s", refusal, run_id, plural(len(batch), "call"), batch[0].kind,
                self.spool.folder / REFUSED,
            )  # fmt: skip

    def _is_there(self, run_id: str) -> bool:
        return self.call(lambda client: is_open(client, self.spool.resolve(run_id)))

    def _send(self, client: MlflowClient, run_id: str, batch: Sequence[Call]) -> None:
        """Send one call, or several of metrics."""
        call, mlflow_id = batch[0], self.spool.resolve(run_id)
        values = call.values
        match call.kind:
            case "create":
                self.spool.note_id(run_id, self._create(run_id, call, asked_before=True))
            case "params":
                client.log_batch(mlflow_id, params=[Param(key, value) for key, value in values.items()])
            case "tags":
                client.log_batch(mlflow_id, tags=[RunTag(key, value) for key, value in values.items()])
            case "metrics":
                log_points(client, mlflow_id, points_of(batch, self.spool.progress(run_id)), BATCH_POINTS)
            case "curve":
                log_points(client, mlflow_id, curve_points(client, mlflow_id, call), BATCH_POINTS)
            case "back":
                logged_until = min(self.spool.progress(run_id).logged_until, values["step"])
                self.spool.note(run_id, logged_until=logged_until)
            case "final":
                there = client.get_run(mlflow_id).data.metrics
                new = {key: value for key, value in values["values"].items() if key not in there}
                client.log_batch(mlflow_id, metrics=[Metric(key, new[key], call.at, values["step"]) for key in new])
            case "artifact":
                send_artifact(client, mlflow_id, self.spool.file_of(run_id, call), values["folder"])
            case "dataset":
                send_dataset(client, mlflow_id, self.home, values)
            case "model":
                send_model(client, mlflow_id, values)
            case "reopen":
                trained, sampled = (newest_step(client, mlflow_id, key) for key in ("train/loss", LOAD_SAMPLED))
                begun = tuple(client.get_run(mlflow_id).data.metrics)
                self.spool.note(run_id, logged_until=max(trained, 0), begun=begun, samples=sampled + 1)
                client.update_run(mlflow_id, status="RUNNING")
            case "close":
                client.set_terminated(mlflow_id, values["status"], end_time=call.at)

    def _create(self, run_id: str, call: Call, asked_before: bool) -> str:
        """Make a run and return its id in MLflow; the one that an earlier try made, if there was one."""
        client, values = self.client(), call.values
        parent_id = str(values["parent_id"])
        if parent_id and self.spool.creation_waits(parent_id):
            self._deliver_run(parent_id)
        experiment = self.experiment_id(client)
        if asked_before:
            made = client.search_runs([experiment], f"tags.`{SPOOL_ID}` = '{run_id}'", max_results=1)
            if made:
                return str(made[0].info.run_id)
        parent = {"mlflow.parentRunId": self.spool.resolve(parent_id)} if parent_id else {}
        tags = {**values["tags"], **parent, SPOOL_ID: run_id, HOME: str(self.home)}
        run = client.create_run(experiment, start_time=call.at, tags=tags, run_name=values["name"])
        return str(run.info.run_id)


def spool_folder(tracking_uri: str, home: Path, place: Path) -> Path:
    """Where the spool of a store is; that of a database below `place` is named by the database's path from there."""
    return home / "spool" / digest_of(tracking_uri.removeprefix(f"sqlite:///{place}/"))[:12]
