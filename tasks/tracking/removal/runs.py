"""Runs and registered versions of a recipe in the tracking store, and how one goes: what it logged, then its rows.

MLflow's own deletion marks a run and keeps everything. `mlflow gc` deletes what is marked, and ends at the first run
whose files are gone already; so it is done here, over the methods of the store that it uses. Where a server keeps the
store, rows and files are the server's: a run is marked there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from tasks.tracking.client import is_server, known
from tasks.tracking.delivery import HOME, SPOOL_ID, Outbox
from tasks.tracking.models.files import local_path
from tasks.tracking.versions import OLD_MODEL, ROLLED_BACK, model_of

T = TypeVar("T")
PAGE = 1_000
DELETED_STAGE = "Deleted_Internal"
"""Of a version's row that MLflow keeps when the version is deleted."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """A run of a recipe's in this home."""

    id: str
    asked_as: str
    """The id by which records and notes know it, if it was started while the store was away; else the same."""
    kind: str
    """`night`, `stage`, or that of a trial."""
    parent: str
    started: int
    """Milliseconds since 1970."""
    marked: bool
    """Whether it is deleted for MLflow."""
    artifacts: str
    """URI."""

    @property
    def folder(self) -> Path | None:
        """What it takes of this machine's disk."""
        path = local_path(self.artifacts)
        return path.parent if path and path.name == "artifacts" and path.parent.name == self.id else path


@dataclass(frozen=True, kw_only=True)
class TrackedVersion:
    """A registered version."""

    version: int
    run_id: str
    source: str
    """URI of its files."""
    roles: tuple[str, ...]
    """Its aliases, and whether a person took it out of use."""


@dataclass(frozen=True)
class Remains:
    """What a home has in a tracking store. Every method raises StoreAway if that does not answer."""

    outbox: Outbox

    @property
    def keeps_rows(self) -> bool:
        """Whether rows and files are a server's, which alone can delete them."""
        return is_server(self.outbox.tracking_uri)

    def runs(self, recipe: str) -> list[TrackedRun]:
        """All runs of a recipe in this home, newest first; those too that are marked as deleted, if they can go."""
        home = str(self.outbox.home)
        return [as_tracked(run) for run in self._found(recipe) if run.data.tags.get(HOME) == home]

    def _found(self, recipe: str) -> Iterator[Any]:
        wanted, token, order = f"tags.`nightschool.recipe` = '{recipe}'", None, ["attributes.start_time DESC"]
        experiment = self._ask(self.outbox.experiment_id)
        view = ViewType.ACTIVE_ONLY if self.keeps_rows else ViewType.ALL

        def page(client: MlflowClient) -> Any:
            return client.search_runs([experiment], wanted, view, PAGE, order, token)

        while True:
            found = self._ask(page)
            yield from found
            if not (token := found.token):
                return

    def versions(self, recipe: str) -> list[TrackedVersion]:
        """All registered versions of a recipe, newest first."""
        name = model_of(recipe)

        def found(client: MlflowClient) -> list[TrackedVersion]:
            model = known(client.get_registered_model, name)
            by_version: dict[str, list[str]] = {}
            for alias, version in (model.aliases if model else {}).items():
                by_version.setdefault(str(version), []).append(alias)
            versions = list(client.search_model_versions(f"name='{name}'")) if model else []
            return [
                TrackedVersion(
                    version=int(v.version), run_id=str(v.run_id or ""), source=str(v.source or ""),
                    roles=(*sorted(by_version.get(str(v.version), ())), *taken_out(v.tags)),
                )
                for v in sorted(versions, key=lambda v: int(v.version), reverse=True)
            ]  # fmt: skip

        return self._ask(found)

    def not_taken_over(self, recipe: str) -> bool:
        """Whether a recipe has no model of its own while there is one that all recipes shared in an earlier release."""
        names = (model_of(recipe), OLD_MODEL)
        own, old = (self._ask(partial(has_model, name=name)) for name in names)
        return old and not own

    def remove_version(self, recipe: str, version: TrackedVersion) -> bool:
        """Delete a version and then its files, unless it was given a role meanwhile; whether it went."""
        there = self.versions(recipe)
        if any(v.roles for v in there if v.version == version.version):
            return False
        self._ask(lambda client: known(client.delete_model_version, model_of(recipe), str(version.version)))
        shared = any(v.source == version.source for v in there if v.version != version.version)
        if not (self.keeps_rows or shared):
            self._remove_files(version.source, local_path(version.source))
        return True

    def remove_run(self, run: TrackedRun) -> None:
        """Mark a run as deleted, then delete its logged models, its files and its rows, in this order: what is left
        when this is cut short is found again by the run."""
        if not run.marked:
            self._ask(lambda client: client.delete_run(run.id))
        if self.keeps_rows:
            return
        self._remove_models(run)
        self._remove_files(run.artifacts, run.folder)
        self._ask(lambda client: store_of(client)._hard_delete_run(run.id))

    def _remove_models(self, run: TrackedRun) -> None:
        experiment = self._ask(self.outbox.experiment_id)
        models = self._ask(
            lambda client: client.search_logged_models([experiment], f"source_run_id = '{run.id}'", max_results=100)
        )
        for model in models:
            self._remove_files(model.artifact_location, local_path(model.artifact_location))
            self._ask(partial(hard_delete_model, model_id=model.model_id))

    def _remove_files(self, uri: str, folder: Path | None) -> None:
        """Files that are gone already are no fault."""
        if folder is not None:
            if folder.exists():
                shutil.rmtree(folder)
            return
        repository = get_artifact_repository(uri, tracking_uri=self.outbox.tracking_uri)
        if repository.list_artifacts():
            repository.delete_artifacts()

    def sweep_rows(self, recipe: str) -> int:
        """Delete rows that belong to runs and versions that are gone, which MLflow keeps; returns their number."""
        return 0 if self.keeps_rows else self._ask(lambda client: swept(store_of(client).engine, model_of(recipe)))

    def _ask(self, question: Callable[[MlflowClient], T]) -> T:
        return self.outbox.call(question)


def store_of(client: MlflowClient) -> Any:
    """MLflow's store over a database, which alone can delete for good."""
    return client._tracking_client.store


def has_model(client: MlflowClient, name: str) -> bool:
    return known(client.get_registered_model, name) is not None


def hard_delete_model(client: MlflowClient, model_id: str) -> None:
    client.delete_logged_model(model_id)
    store_of(client)._hard_delete_logged_model(model_id)


def taken_out(tags: Mapping[str, str]) -> tuple[str, ...]:
    return ("rolled back by a person",) if ROLLED_BACK in tags else ()


def as_tracked(run: Any) -> TrackedRun:
    tags = run.data.tags
    return TrackedRun(
        id=run.info.run_id, asked_as=tags.get(SPOOL_ID, run.info.run_id), kind=tags.get("nightschool.kind", ""),
        parent=tags.get("mlflow.parentRunId", ""), started=run.info.start_time or 0,
        marked=run.info.lifecycle_stage == "deleted", artifacts=run.info.artifact_uri,
    )  # fmt: skip


def swept(engine: sqlalchemy.Engine, model: str) -> int:
    """Delete inputs and outputs of no run, their tags, data sets that nothing reads, and rows of deleted versions
    below the newest one, whose number decides the next; returns how many rows, without tags."""
    tables, select = sqlalchemy.MetaData(), sqlalchemy.select
    names = ("runs", "inputs", "input_tags", "datasets", "model_versions", "model_version_tags")
    tables.reflect(engine, only=names)
    runs, inputs, tags, datasets, versions, version_tags = (tables.tables[name] for name in names)
    no_run, read = select(runs.c.run_uuid), select(inputs.c.source_id).where(inputs.c.source_type == "DATASET")
    with engine.begin() as connection:
        newest = select(sqlalchemy.func.max(versions.c.version)).where(versions.c.name == model)
        last = connection.execute(newest).scalar() or 0
        dead = (versions.c.name == model, versions.c.current_stage == DELETED_STAGE, versions.c.version < last)
        of_dead = version_tags.c.version.in_(select(versions.c.version).where(*dead))
        connection.execute(version_tags.delete().where(version_tags.c.name == model, of_dead))
        gone = (
            versions.delete().where(*dead),
            inputs.delete().where(inputs.c.destination_type == "RUN", inputs.c.destination_id.not_in(no_run)),
            inputs.delete().where(inputs.c.source_type == "RUN_OUTPUT", inputs.c.source_id.not_in(no_run)),
            datasets.delete().where(datasets.c.dataset_uuid.not_in(read)),
        )
        count = sum(connection.execute(statement).rowcount for statement in gone)
        connection.execute(tags.delete().where(tags.c.input_uuid.not_in(select(inputs.c.input_uuid))))
    return count
