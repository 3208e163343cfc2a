"""Runs of the tracking store. Run ids are always explicit, never "the active run".

What is reported goes to the disk first and from there to MLflow, at once if MLflow answers: a store that is slow or
away ends no night, and nothing that the night reported is lost (`tasks.tracking.delivery`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from uuid import uuid4

from tasks.errors import StoreAway
from tasks.home.records import Content
from tasks.services.databases import MLFLOW, make_whole
from tasks.settings import sqlite_file
from tasks.tracking.delivery import BATCH_POINTS, SPOOL_ID, Delivery, Outbox, is_open
from tasks.tracking.registry import Registry
from tasks.tracking.spool import Call
from tasks.tracking.system_metrics import SystemMetrics

PARAM_CHARACTERS, TAG_CHARACTERS = 6_000, 5_000
"""MLflow takes no longer values."""


class MlflowTracker:
    """One run. A step that it reported before it was reopened is not reported again."""

    def __init__(self, outbox: Outbox, run_id: str, system_metrics: bool = False) -> None:
        self.run_id = run_id
        self._outbox = outbox
        self._points = 0
        self._system_metrics = SystemMetrics(self._keep_metrics) if system_metrics else None

    def params(self, values: Mapping[str, str]) -> None:
        self._report("params", {key: value[:PARAM_CHARACTERS] for key, value in values.items()})

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """They are delivered by the hundreds, as a call of MLflow takes milliseconds."""
        self._keep_metrics(values, step)
        self._points += len(values)
        if self._points >= BATCH_POINTS:
            self._points = 0
            self._outbox.deliver_run(self.run_id)

    def _keep_metrics(self, values: Mapping[str, float], step: int) -> None:
        numbers = {key: float(value) for key, value in values.items()}
        self._outbox.spool.append(self.run_id, "metrics", {"step": step, "values": numbers})

    def tags(self, values: Mapping[str, str]) -> None:
        self._report("tags", {key: value[:TAG_CHARACTERS] for key, value in values.items()})

    def artifact(self, path: Path, folder: str = "") -> None:
        self._report("artifact", {"folder": folder}, path)

    def dataset(self, content: Content, name: str, context: str) -> None:
        values = {"name": name, "digest": content.digest[:32], "uri": content.path.as_uri(), "context": context}
        self._report("dataset", values)

    def close(self, status: str) -> None:
        """End the run, or with RUNNING only this report of it, and try to deliver all that waits."""
        if self._system_metrics:
            self._system_metrics.stop()
        self._outbox.spool.append(self.run_id, "close", {"status": status})
        self._outbox.deliver()

    def _report(self, kind: str, values: Mapping[str, str], artifact: Path | None = None) -> None:
        self._outbox.spool.append(self.run_id, kind, values, artifact)
        self._outbox.deliver_run(self.run_id)


@cache
def outbox_of(tracking_uri: str, home: Path) -> Outbox:
    """One a process, so that whoever meets a store that is away spares the others the wait.

    Connecting to it makes its database whole if that is a file, or raises NightStopped.
    """
    file = sqlite_file(tracking_uri)
    return Outbox(tracking_uri, home, prepare=partial(make_whole, file, MLFLOW)) if file else Outbox(tracking_uri, home)


class Store:
    """The runs of one tracking address. Nothing here fails or waits long because the store is away."""

    def __init__(self, tracking_uri: str, home: Path) -> None:
        self.tracking_uri = tracking_uri
        self._outbox = outbox_of(tracking_uri, home)

    @property
    def registry(self) -> Registry:
        """The model registry of the same address; it does fail when the store is away."""
        return Registry(self._outbox)

    def experiment_id(self) -> str:
        """The experiment, for links to runs; empty while the store is away."""
        try:
            return self._outbox.ask(self._outbox.experiment_id)
        except StoreAway:
            return ""

    def start_run(self, name: str, tags: Mapping[str, str], parent_id: str = "") -> str:
        """Create a run and return its id: MLflow's, or if the store is away one that `resolve` will translate.

        name: shown in the UI.
        tags: values of at most 5,000 characters.
        parent_id: id of the run it belongs to, as this function returned it.
        """
        own_id, values = uuid4().hex, {"name": name, "tags": dict(tags), "parent_id": parent_id}
        try:
            return self._outbox.start_run(own_id, Call("create", int(time.time() * 1_000), values, end=0))
        except StoreAway:
            self._outbox.spool.append(own_id, "create", values)
            self._outbox.spool.flush(own_id)
            return own_id

    def reopen(self, run_id: str) -> bool:
        """Set a run running again; False if the store does not know it. One that is away is assumed to know it."""
        spool = self._outbox.spool
        try:
            there = spool.creation_waits(run_id) or self._outbox.ask(lambda c: is_open(c, spool.resolve(run_id)))
        except StoreAway:
            there = True
        if there:
            spool.append(run_id, "reopen", {})
            self._outbox.deliver_run(run_id)
        return there

    def close_orphans(self, home: Path) -> int:
        """Mark runs of this home that a dead process left RUNNING as KILLED, after all that waited is delivered.

        Call it while holding the lease. Returns their number; none while the store is away.
        """
        self.deliver()
        try:
            open_runs = self._outbox.ask(
                lambda client: client.search_runs(
                    [self._outbox.experiment_id(client)], "attributes.status = 'RUNNING'", max_results=1_000
                )
            )
        except StoreAway:
            return 0
        orphans = [run for run in open_runs if run.data.tags.get("nightschool.home") == str(home)]
        spooled = set(self._outbox.spool.runs())
        for run in orphans:
            own_id = run.data.tags.get(SPOOL_ID)
            self._outbox.spool.append(own_id if own_id in spooled else run.info.run_id, "close", {"status": "KILLED"})
        if orphans:
            self.deliver()
        return len(orphans)

    def tracker(self, run_id: str, system_metrics: bool = False) -> MlflowTracker:
        return MlflowTracker(self._outbox, run_id, system_metrics)

    def deliver(self) -> Delivery:
        """Try to deliver all that waits, however lately the store did not answer."""
        return self._outbox.deliver()

    def waiting(self) -> int:
        """How many calls wait."""
        return self._outbox.spool.waiting()

    def resolve(self, run_id: str) -> str:
        """A run's id in MLflow. It is another than `start_run` returned if the store was away then."""
        return self._outbox.spool.resolve(run_id)
