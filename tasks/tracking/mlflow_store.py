"""Runs of the tracking store. Run ids are always explicit, never "the active run".

What is reported goes to the disk first and from there to MLflow, at once if MLflow answers: a store that is slow or
away ends no night, and nothing that the night reported is lost (`tasks.tracking.delivery`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from mlflow import MlflowClient
from mlflow.utils.git_utils import get_git_commit

from model.files import write_text
from tasks.errors import Denied, StoreAway, without_password
from tasks.home.records import Content
from tasks.relocation import places
from tasks.services.databases import MLFLOW, make_whole
from tasks.settings import PROJECT, sqlite_file
from tasks.tracking.client import is_open, keep_default_inside, why_silent
from tasks.tracking.delivery import BATCH_POINTS, HOME, SPOOL_ID, Delivery, Outbox, spool_folder
from tasks.tracking.registry import Registry
from tasks.tracking.spool import Call
from tasks.tracking.system_metrics import SystemMetrics

PARAM_CHARACTERS, TAG_CHARACTERS = 6_000, 5_000
"""MLflow takes no longer values."""


class MlflowTracker:
    """One run. A step that it reported before it was reopened is not reported again, unless it went back before it."""

    def __init__(self, outbox: Outbox, run_id: str, system_metrics: bool = False) -> None:
        self.run_id = run_id
        self._outbox = outbox
        self._points = 0
        self._system_metrics = SystemMetrics(self._keep_metrics) if system_metrics else None

    def params(self, values: Mapping[str, str]) -> None:
        """A value that is too long is cut, with a mark, and is whole in the artifact `parameters/NAME.txt`."""
        self._report("params", {key: bounded(value, PARAM_CHARACTERS) for key, value in values.items()})
        with TemporaryDirectory() as folder:
            for key, value in values.items():
                if len(value) > PARAM_CHARACTERS:
                    whole = Path(folder) / f"{key.replace('/', '_')}.txt"
                    whole.write_text(value, encoding="utf-8")
                    self.artifact(whole, "parameters")

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """They are delivered by the hundreds, as a call of MLflow takes milliseconds."""
        self._keep_metrics(values, step)
        self._points += len(values)
        if self._points >= BATCH_POINTS:
            self._points = 0
            self._outbox.deliver_run(self.run_id)

    def back(self, step: int) -> None:
        """The steps after this one do not stand: they are made again, and what they report counts."""
        self._report("back", {"step": step})

    def curve(self, points: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Metrics of many steps at once, made elsewhere. However often they are reported, the run has each once."""
        numbers = [[step, {key: float(value) for key, value in values.items()}] for step, values in points]
        self._report("curve", {"points": numbers})

    def final(self, values: Mapping[str, float], step: int) -> None:
        """Figures of the end, at the last step of the run's curves; one that has a curve is its last point already."""
        self._report("final", {"step": step, "values": {key: float(value) for key, value in values.items()}})

    def _keep_metrics(self, values: Mapping[str, float], step: int) -> None:
        numbers = {key: float(value) for key, value in values.items()}
        self._outbox.spool.append(self.run_id, "metrics", {"step": step, "values": numbers})

    def tags(self, values: Mapping[str, str]) -> None:
        self._report("tags", {key: bounded(value, TAG_CHARACTERS) for key, value in values.items()})

    def artifact(self, path: Path, folder: str = "") -> None:
        self._report("artifact", {"folder": folder}, path)

    def dataset(self, content: Content, name: str, context: str) -> None:
        uri = self._outbox.address_of(content.path)
        values = {"name": name, "digest": content.digest[:32], "uri": uri, "context": context}
        self._report("dataset", values)

    def model(self, name: str, version: int, step: int) -> None:
        """The registered version that the run made, at its last step."""
        self._report("model", {"name": name, "version": version, "step": step})

    def close(self, status: str) -> None:
        """End the run, or with RUNNING only this report of it, and try to deliver all that waits."""
        if self._system_metrics:
            self._system_metrics.stop()
        self._outbox.spool.append(self.run_id, "close", {"status": status})
        self._outbox.deliver()

    def _report(self, kind: str, values: Mapping[str, Any], artifact: Path | None = None) -> None:
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
        take_over_spools(self._outbox)

    def registry(self, recipe: str) -> Registry:
        """The models of a recipe in the registry of the same address; it does fail when the store is away."""
        return Registry(self._outbox, recipe)

    def check(self) -> bool:
        """Ask once whether the store answers, PROBE_SECONDS at most; whether it does.

        Raises Denied if it wants other credentials, and Refused if the address cannot be used.
        """
        try:
            self._outbox.ask(self._check)
        except Denied:
            raise
        except StoreAway:
            return False
        return True

    def require(self) -> None:
        """For what a person does at once, with nothing that could wait: as `check`, or raises StoreAway."""
        try:
            self._outbox.call(self._check)
        except Denied:
            raise
        except StoreAway as away:
            raise StoreAway(
                f"the model registry at {without_password(self.tracking_uri)} did not answer "
                f"({why_silent(away.__cause__ or away)}); nothing was changed, run the same again when it answers"
            ) from away

    def _check(self, client: MlflowClient) -> None:
        self._outbox.check(client)
        outbox, folders = self._outbox, (Path.cwd(), PROJECT)
        keep_default_inside(client, self.tracking_uri, outbox.artifacts, outbox.home, folders)

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

    def close_orphans(self) -> int:
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
        orphans = [run for run in open_runs if run.data.tags.get(HOME) == str(self._outbox.home)]
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


def bounded(value: str, max_characters: int) -> str:
    """A value of at most so many characters; one that is cut ends in a mark and its length."""
    mark = f"… ({len(value):,} characters in all)"
    return value if len(value) <= max_characters else value[: max_characters - len(mark)] + mark


def source_tags(module: str) -> dict[str, str]:
    """Which code a run is of: the file of a module, and the commit if the project is a clone."""
    commit = commit_of_project()
    named = {"mlflow.source.name": f"{module.replace('.', '/')}.py", "mlflow.source.type": "LOCAL"}
    return named | ({"mlflow.source.git.commit": commit} if commit else {})


@cache
def commit_of_project() -> str | None:
    """One a process: it does not change for code that is loaded."""
    return get_git_commit(str(PROJECT / "flows"))


def open_run(
    store: Store, note: Path, name: str, tags: Mapping[str, str], params: Mapping[str, str], parent_id: str
) -> str:
    """The id of the run that `note`, a file, names, set running again; else of a new one, which is noted there.

    name, tags, params, parent_id: of a new run.
    """
    if note.exists() and store.reopen(note.read_text()):
        return note.read_text()
    run_id = store.start_run(name, tags, parent_id=parent_id)
    store.tracker(run_id).params(params)
    write_text(note, run_id)
    return run_id


@cache
def take_over_spools(outbox: Outbox) -> None:
    """Once in a process: what waits in spools that an earlier version named by where the home was."""
    home, folder = outbox.home, outbox.spool.folder
    for place in {home, *places(home)}:
        named_then = spool_folder(
            outbox.tracking_uri.replace(f"sqlite:///{home}/", f"sqlite:///{place}/"), home, Path()
        )
        if named_then != folder:
            outbox.spool.take_over(named_then)
