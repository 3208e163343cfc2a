"""The frame every stage runs in: reuse what is done, go on with what is not, track, publish."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prefect.context import TaskRunContext

from tasks.errors import NightStopped
from tasks.home.digests import code_version, digest_of, plain
from tasks.home.journal import KEY_CHARACTERS, Journal
from tasks.home.records import LOGS, Ref, StageRecord, file_digests
from tasks.recipes.recipe import Recipe
from tasks.sources.resolve import Resolved
from tasks.tracking.mlflow_store import CHAMPION, ModelVersion, Store
from tasks.tracking.tracker import Tracker


def champion(night: Night) -> ModelVersion | None:
    """The version in use, if there is one."""
    return night.store.holder_of(CHAMPION)


log = logging.getLogger("nightschool")
TRAINING_CODE = (
    "model",
    "tasks.training.run",
    "tasks.training.start",
    "tasks.training.processes",
    "tasks.training.validator",
)


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
    branch: str = ""
    """Whose stages these are if not the night's own: it stands before their names, so that none passes for another."""
    changes: Mapping[str, str] = field(default_factory=dict)
    """What the branch changes of the recipe, as parameters of its stages' tracking runs."""

    def stage_name(self, stage: str) -> str:
        """What a stage is called in records, folders, tags and messages."""
        return f"{self.branch}-{stage}" if self.branch else stage

    @property
    def journal(self) -> Journal:
        return Journal(self.home)

    @property
    def store(self) -> Store:
        return Store(self.tracking_uri, self.home)


@dataclass(frozen=True)
class StageRun:
    """What a stage's work gets."""

    folder: Path
    """Where to write; `folder / "logs"` does not count for the digest."""
    tracker: Tracker
    stage: str
    """Its name, that of the night's branch included."""

    @property
    def logs(self) -> Path:
        return self.folder / LOGS


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage's work says of itself."""

    counts: Mapping[str, int]
    headline: str
    figures: Mapping[str, float] = field(default_factory=dict)
    taken_over: Mapping[str, str] = field(default_factory=dict)
    """Digests of files that were linked from an earlier record."""


def run_stage(
    night: Night,
    stage: str,
    *,
    inputs: Mapping[str, Ref | str],
    config: object,
    code: tuple[str, ...],
    work: Callable[[StageRun], Outcome],
    resumable: bool = False,
    system_metrics: bool = False,
) -> StageRecord:
    """Do a stage, or find it done.

    The key is the digest of the inputs' content, the configuration and the code; a finished stage with the same
    key is returned as it is. `work` writes into a folder that becomes visible only when it is complete.
    """
    stage = night.stage_name(stage)
    digests = {name: ref.digest if isinstance(ref, Ref) else ref for name, ref in inputs.items()}
    version = code_version(*code)
    key = digest_of({"stage": stage, "inputs": digests, "config": plain(config), "code": version})
    if done := night.journal.finished(stage, key):
        log.info("%-11s reused     %s", stage, done.headline)
        return done
    working = night.journal.working_folder(stage, key, resumable)
    run_id = open_run(night, stage, key, working, {name: ref for name, ref in inputs.items() if isinstance(ref, Ref)})
    tracker = night.store.tracker(run_id, system_metrics)
    log.info("%-11s started", stage)
    started = time.monotonic()
    status = "FAILED"
    try:
        outcome = work(StageRun(working, tracker, stage))
        files = file_digests(working, outcome.taken_over)
        record = StageRecord(
            stage=stage, key=key, path=night.journal.stage_folder(stage, key), digest=digest_of(files), files=files,
            config=plain(config), inputs=digests, code_version=version, counts=dict(outcome.counts),
            figures=dict(outcome.figures), headline=outcome.headline, seconds=elapsed(working, started), run_id=run_id,
        )  # fmt: skip
        tracker.params({f"stage.{name}": str(value) for name, value in record.counts.items()})
        tracker.metrics(record.figures)
        night.journal.publish(working, record, night.token)
        status = "FINISHED"
    except (KeyboardInterrupt, NightStopped) as stop:
        status = "FAILED" if isinstance(stop, NightStopped) and stop.exit_code < 100 else "KILLED"
        elapsed(working, started)
        raise
    finally:
        tracker.close(status)
    log.info("%-11s %6.1f s   %s", stage, record.seconds, record.headline)
    return record


def grow_stage(
    night: Night,
    stage: str,
    *,
    rows: Ref,
    grown_from: str,
    config: object,
    code: tuple[str, ...],
    work: Callable[[StageRun, StageRecord | None], Outcome],
) -> StageRecord:
    """Do a data stage, or only what is new of it.

    If tonight's `rows` are earlier rows and more (`grown_from` is the digest of the earlier ones), and this stage
    made something of those with the same configuration and code, `work` gets that record and adds to it.
    """
    newest, version = night.journal.newest(stage, night.recipe.name), code_version(*code)
    if newest and (newest.config != plain(config) or newest.code_version != version):
        newest = None
    if newest and newest.inputs["rows"] == rows.digest:
        base_digest, base = newest.inputs["base"], None  # found done, whatever it was grown from
    else:
        base = newest if newest and grown_from and newest.inputs["rows"] == grown_from else None
        base_digest = base.digest if base else ""
    inputs: dict[str, Ref | str] = {"rows": rows, "base": base_digest}
    record = run_stage(night, stage, inputs=inputs, config=config, code=code, work=lambda run: work(run, base))
    night.journal.remember(record, night.recipe.name)
    return record


def elapsed(working: Path, started: float) -> float:
    """Seconds of work, those before an interruption included."""
    file = working / LOGS / "seconds"
    before = float(file.read_text()) if file.exists() else 0.0
    total = before + time.monotonic() - started
    file.write_text(f"{total:.3f}")
    return round(total, 3)


def open_run(night: Night, stage: str, key: str, working: Path, refs: Mapping[str, Ref]) -> str:
    """The stage's tracking run: the one it was interrupted in, or a new one."""
    note = working / LOGS / "run_id"
    if note.exists() and night.store.reopen(note.read_text()):
        return note.read_text()
    tags = {
        "nightschool.kind": "stage",
        "nightschool.stage": stage,
        "nightschool.recipe": night.recipe.name,
        "nightschool.home": str(night.home),
        "nightschool.key": key,
        **{f"nightschool.input.{name}": ref.digest for name, ref in refs.items()},
        **prefect_tags(),
    }
    run_id = night.store.start_run(f"{stage}-{key[:KEY_CHARACTERS]}", tags, parent_id=night.run_id)
    if night.changes:
        night.store.tracker(run_id).params(night.changes)
    note.write_text(run_id)
    return run_id


def prefect_tags() -> dict[str, str]:
    """Which task run this is, if it is one."""
    context = TaskRunContext.get()
    if context is None:
        return {}
    run = context.task_run
    return {"prefect.task_run_id": str(run.id), "prefect.flow_run_id": str(run.flow_run_id)}
