"""A stage is declared once, with `@stage(...)` around a plain function, and every stage runs in the same frame: reuse
what is done, resume what is not, track, publish.

    @stage(config=lambda recipe: recipe.split, grows=True)
    def split(run: StageRun, rows: StageRecord) -> Outcome: ...

    record = split(night, rows)        # a Prefect task; `split.fn(night, rows)` is the same without Prefect
"""

from __future__ import annotations

import importlib
import inspect
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.runtime import task_run

from tasks.errors import Interrupted
from tasks.faults import disk_faults, whatever_it_says
from tasks.home.code import code_version
from tasks.home.contents.packed import digest_of_kind
from tasks.home.digests import digest_of, plain
from tasks.home.journal import Journal
from tasks.home.records import LOGS, BegunStage, Content, StageRecord, elapsed, file_digests, stage_name
from tasks.home.stage_table import StageEntry, entry_of
from tasks.home.trunk import FROM_SCRATCH, Start, start_inputs
from tasks.pages.text import RUN_NAME_CHARACTERS, one_line
from tasks.planning.disk import disk_needed
from tasks.recipes.overrides import told
from tasks.recipes.recipe import Recipe, params_of_stage
from tasks.services.endings import may_help, prefect_tags, tell_failure
from tasks.sources.resolve import Resolved
from tasks.tracking.mlflow_store import Store, open_run, source_tags
from tasks.tracking.registry import Registry
from tasks.tracking.tracker import Tracker

log = logging.getLogger("nightschool")


@dataclass(frozen=True)
class Night:
    """The night that a stage belongs to; small and plain, so that it passes between tasks and processes."""

    recipe: Recipe
    key: str
    home: Path
    tracking_uri: str
    run_id: str
    """The night's parent run."""
    token: int
    """Fencing token of the lease."""
    raw: Resolved
    """Tonight's raw data, piece by piece."""
    start: Start = FROM_SCRATCH
    """What its pretraining begins with."""
    day: str = ""
    """On which it was opened first, in UTC, as 2026-11-28: it tells people which night this is."""
    opened_at: float = 0.0
    """When this run of it was opened, on the monotonic clock of its process, in seconds; 0 if it was not."""
    name: str = ""
    """Of its run, with what differs from the night before; empty for a trial."""
    branch: str = ""
    """Whose stages these are if not the night's own: `twin`, `sweep`."""
    changes: Mapping[str, str] = field(default_factory=dict)
    """What the branch changes of the recipe, as parameters of its stages' tracking runs."""

    @property
    def journal(self) -> Journal:
        return Journal(self.home)

    @property
    def store(self) -> Store:
        return Store(self.tracking_uri, self.home)

    @property
    def registry(self) -> Registry:
        return self.store.registry(self.recipe.name)


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """What a stage's function gets beside the records it reads."""

    night: Night
    folder: Path
    """Where to write; `folder / "logs"` does not count for the digest."""
    tracker: Tracker
    stage: str
    """Its name, that of the night's branch included."""
    base: StageRecord | None = None
    """Of a stage that grows: what it made of fewer rows, whose files this one takes over."""

    @property
    def recipe(self) -> Recipe:
        return self.night.recipe

    @property
    def logs(self) -> Path:
        return self.folder / LOGS


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage's function reports."""

    counts: Mapping[str, int]
    headline: str
    figures: Mapping[str, float] = field(default_factory=dict)
    linked: Mapping[str, str] = field(default_factory=dict)
    """Digests of files that were linked from an earlier record, by path: they are not read again."""


def by_content(_night: Night, **arguments: Any) -> dict[str, str]:
    """The digests of all records and models among a stage's arguments.

    Any other argument counts for nothing: one that decides what the stage makes needs an `inputs` of its own.
    """
    return {name: value.digest for name, value in arguments.items() if isinstance(value, Content)}


@dataclass(frozen=True, kw_only=True)
class StageFrame:
    """What surrounds a stage's function."""

    entry: StageEntry
    work: Callable[..., Outcome]
    config: Callable[[Recipe], object]
    inputs: Callable[..., Mapping[str, str]]
    grows: bool
    resumable: bool
    system_metrics: bool

    def run(self, night: Night, *records: Any, **named: Any) -> StageRecord:
        """Do the stage, or find it done.

        The key is the digest of the inputs' content, the configuration and the code. The function writes into a folder
        that becomes visible only when it is complete.
        """
        arguments = inspect.signature(self.work).bind(None, *records, **named).arguments
        arguments.pop("run")
        name, config = stage_name(self.entry.name, night.branch), plain(self.config(night.recipe))
        version = code_version(self.work.__module__)
        digests, base = dict(self.inputs(night, **arguments)), None
        if self.grows and "rows" in arguments:
            base, digests["base"] = self._base(night, arguments["rows"], config, version)
        of: dict[str, Any] = {
            "stage": self.entry.name, "branch": night.branch, "inputs": digests, "config": config, "code": version
        }  # fmt: skip
        if record := night.journal.finished(name, key := digest_of(of)):
            log.info("%-11s reused     %s", name, record.headline)
        else:
            tags = {f"nightschool.input.{n}": digests[n] for n in digests if isinstance(arguments.get(n), Content)}
            called = title_of(night, self.entry.name, arguments.get("label", ""))
            final = night.journal.stage_folder(name, key)
            on_disk = disk_faults(final, night.home, partial(disk_needed, night.recipe))
            with on_disk, self._tracked(night, name, called, key, tags, config, base) as run:
                started = time.monotonic()
                begun = BegunStage(**of, key=key, run_id=run.tracker.run_id, night_run=night.run_id)
                begun.write(run.folder)
                outcome = self.work(run, **arguments)
                files = file_digests(run.folder, outcome.linked)
                record = replace(
                    begun.record(final), digest=digest_of(files), files=files, counts=dict(outcome.counts),
                    figures=dict(outcome.figures), headline=outcome.headline, seconds=elapsed(run.folder, started),
                )  # fmt: skip
                run.tracker.params({f"stage.{count}": str(value) for count, value in record.counts.items()})
                run.tracker.final(record.figures, record.last_step)
                night.journal.publish(run.folder, record, night.token)
            log.info("%-11s %6.1f s   %s", name, record.seconds, record.headline)
        if self.grows:
            night.journal.remember(record, night.recipe.name)
        return record

    @contextmanager
    def _tracked(
        self, night: Night, name: str, called: str, key: str, tags: Mapping[str, str], config: object,
        base: StageRecord | None,
    ) -> Iterator[StageRun]:  # fmt: skip
        """A folder and a tracking run for the stage, called so, which ends as the stage ended."""
        working = night.journal.working_folder(name, key, self.resumable)
        run_id = open_run(
            night.store, working / LOGS / "run_id", called,
            {"nightschool.kind": "stage", "nightschool.stage": name, "nightschool.recipe": night.recipe.name,
             "nightschool.key": key, **source_tags(self.work.__module__), **tags, **prefect_tags()},
            {**params_of_stage(self.entry.name, config), **night.changes}, night.run_id,
        )  # fmt: skip
        tracker = night.store.tracker(run_id, self.system_metrics)
        log.info("%-11s started", name)
        started, by_a_person = time.monotonic(), (KeyboardInterrupt, TerminationSignal, Interrupted)
        try:
            yield StageRun(night=night, folder=working, tracker=tracker, stage=name, base=base)
        except BaseException as error:
            if night.journal.read_token() != night.token:  # overtaken: folder and run are another night's by now
                raise
            with whatever_it_says(f"that {name} ended"):
                elapsed(working, started)
                tracker.close("KILLED" if isinstance(error, by_a_person) else "FAILED")
            raise
        tracker.close("FINISHED")

    def _base(self, night: Night, rows: StageRecord, config: object, version: str) -> tuple[StageRecord | None, str]:
        """What a stage that grows starts from, and that record's digest for the key.

        If tonight's `rows` are earlier rows and more, and this stage made something of those with the same
        configuration and code, it adds to that. If it has made something of these very rows, it is found done,
        whatever it grew from.
        """
        newest = night.journal.newest(self.entry.name, night.recipe.name)
        if newest is None or newest.config != config or newest.code_version != version:
            return None, ""
        if newest.inputs["rows"] == rows.digest:
            return None, newest.inputs["base"]
        grown_from = rows.inputs["base"]
        if grown_from and newest.inputs["rows"] == grown_from:
            return newest, newest.digest
        return None, ""


def stage(
    *,
    config: Callable[[Recipe], object],
    inputs: Callable[..., Mapping[str, str]] = by_content,
    grows: bool = False,
    resumable: bool = False,
    system_metrics: bool = False,
    retries: int = 2,
    retry_delay_seconds: tuple[float, ...] = (10.0, 60.0),
    timeout_seconds: float | None = 24 * 3600.0,
) -> Callable[[Callable[..., Outcome]], Task[..., StageRecord]]:
    """Make a function `(run: StageRun, *records) -> Outcome` the stage of its name in the table of stages.

    config: the part of the recipe that decides what the stage makes; it is in the key.
    inputs: `(night, **arguments)` to digests by name, which are in the key; by default those of all records.
    grows: the stage's output for the recipe is remembered, and `run.base` is what it made of earlier `rows`.
    resumable: unfinished work is kept, and the function goes on with it; without it each try begins anew.
    system_metrics: the tracking run also gets processor, memory and accelerator load.
    retries, retry_delay_seconds, timeout_seconds: of the Prefect task. Only faults that pass are retried.
    """

    def declare(work: Callable[..., Outcome]) -> Task[..., StageRecord]:
        frame = StageFrame(
            entry=entry_of(work.__name__.replace("_", "-")), work=work, config=config, inputs=inputs, grows=grows,
            resumable=resumable, system_metrics=system_metrics,
        )  # fmt: skip
        return Task(
            frame.run, name=frame.entry.name, task_run_name=task_run_name, description=inspect.getdoc(work),
            cache_policy=NO_CACHE, persist_result=False, retries=retries,
            retry_delay_seconds=list(retry_delay_seconds), timeout_seconds=timeout_seconds,
            retry_condition_fn=may_help, on_failure=[tell_failure],
        )  # fmt: skip

    return declare


def training_stage(work: Callable[..., Outcome]) -> Task[..., StageRecord]:
    """Make a function `(run: StageRun, tokens, *weights) -> Outcome` the training stage of its name.

    Its settings are the recipe's model and the field of the stage's name. It depends on the packed rows of its own
    kind alone, and resumes from its checkpoints. It has no time-out: the recipe says how long it trains.
    """
    entry = entry_of(work.__name__.replace("_", "-"))

    def config(recipe: Recipe) -> object:
        return {"model": recipe.model, "train": getattr(recipe, entry.name)}

    def inputs(night: Night, tokens: StageRecord, **weights: StageRecord) -> dict[str, str]:
        start = {} if entry.starts_from else start_inputs(night.start, night.home)
        return {"tokens": digest_of_kind(tokens, entry.kind), **start, **by_content(night, **weights)}

    return stage(config=config, inputs=inputs, resumable=True, system_metrics=True, timeout_seconds=None)(work)


def declared(entry: StageEntry) -> Task[..., StageRecord]:
    """The stage of an entry of the table."""
    found: Task[..., StageRecord] = getattr(importlib.import_module(entry.module), entry.function)
    return found


def title_of(night: Night, stage: str, label: str = "") -> str:
    """`pretrain demo 2026-11-28`, `evaluate champion demo 2026-11-28`; of a branch also what it changes."""
    which = f"{night.recipe.name} {night.day}" if night.changes or not night.name else night.name
    words = [stage_name(stage, night.branch), label if label != night.branch else "", which]
    return one_line(" ".join(filter(None, [*words, *told(night.changes)])), RUN_NAME_CHARACTERS)


def task_run_name() -> str:
    """Of the task that runs, from its parameters, as Prefect asks for it: the name of its tracking run."""
    given = {**task_run.parameters, **task_run.parameters.get("named", {})}
    return title_of(given["night"], str(task_run.task_name), given.get("label", ""))
