"""The night as a whole: its lease, its parent run, its summary."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from prefect import get_client
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from model.files import write_json
from tasks.artifacts import StageRecord, code_version, digest_of, plain
from tasks.curve import stage_points
from tasks.errors import Interrupted, NightStopped, PlainMessages
from tasks.evaluate import read_samples
from tasks.journal import KEY_CHARACTERS, Journal
from tasks.recipe import Recipe, as_params
from tasks.register import read_decision
from tasks.report import NightReport
from tasks.services import MLFLOW_PORT, running_url
from tasks.settings import Settings
from tasks.sources import KnownPiece, resolve
from tasks.stage import Night
from tasks.tracking import CHAMPION, PREVIOUS, Store
from tasks.twin import TrainedTwin, TwinComparison, compare
from tasks.validate import read_pieces

NIGHT = "night"
METRIC_KEYS = 40
"""Of one run at the most: more cannot be read side by side."""
TRAINED = ("pretrain", "sft", "evaluate")
log = logging.getLogger("nightschool")


@contextmanager
def open_night(recipe: Recipe, kind: str = NIGHT, asked: object = None) -> Iterator[Night]:
    """Hold the lease and the parent run of a night, and end the run as the night ended.

    A night is named by the digest of recipe, raw bytes and code. Running the same night again goes on in the same
    parent run, so an interruption does not leave two halves to compare. Another `kind` is a trial on the recipe's data,
    and what is `asked` of it belongs to its name.
    """
    prepare_logging()
    settings = Settings.load()
    journal, store = Journal(settings.home), Store(settings.tracking_uri, settings.home)
    with journal.lease(recipe.name) as token:
        if orphans := store.close_orphans(settings.home):
            log.info("%d tracking runs of a night that died were closed", orphans)
        raw = resolve(recipe.sources, settings.home, known_pieces(journal, recipe), recipe.validate.settle_seconds)
        for label, reason in raw.set_aside:
            log.info("left out  %s: %s", label, reason)
        key = digest_of(
            {
                "recipe": plain(recipe),
                "pieces": [(p.label, p.start, p.digest) for p in raw.pieces],
                "code": code_version("flows", "tasks", "data", "schemas", "model"),
                **({"kind": kind, "asked": asked} if asked else {}),
            }
        )
        run_id = open_parent(settings.home, store, recipe, key, kind)
        night = Night(recipe, key, settings.home, settings.tracking_uri, run_id, token, raw)
        link_flow_run(night)
        status = "FAILED"
        try:
            yield night
            status = "FINISHED"
        except (Interrupted, KeyboardInterrupt):
            status = "KILLED"
            raise
        finally:
            store.tracker(run_id).close(status)


def known_pieces(journal: Journal, recipe: Recipe) -> list[KnownPiece]:
    """Pieces that the recipe's last validation knew: of a file that has grown since, only the tail is new."""
    newest = journal.newest("validate", recipe.name)
    return [piece.known for piece in read_pieces(newest.path)] if newest else []


def prepare_logging() -> None:
    """Let our messages through to Prefect, and keep it from adding a traceback to what already is a clear message."""
    log.setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logger = logging.getLogger(name)
        if not any(isinstance(f, PlainMessages) for f in logger.filters):
            logger.addFilter(PlainMessages())


def note_path(home: Path, recipe: str, key: str, kind: str = NIGHT) -> Path:
    """Where a night notes its run and outcome. Trials have a folder of their own: they are no nights to ask about."""
    name = f"{recipe}@{key[:KEY_CHARACTERS]}.json"
    return home / "nights" / name if kind == NIGHT else home / "trials" / f"{kind}-{name}"


def open_parent(home: Path, store: Store, recipe: Recipe, key: str, kind: str) -> str:
    """The night's parent run: the one it had before, or a new one."""
    note = note_path(home, recipe.name, key, kind)
    if note.exists():
        run_id = str(json.loads(note.read_text())["run_id"])
        if store.reopen(run_id):
            return run_id
    tags = {
        "nightschool.kind": kind,
        "nightschool.recipe": recipe.name,
        "nightschool.home": str(home),
        "nightschool.key": key,
    }
    run_id = store.start_run(f"{'' if kind == NIGHT else kind + '-'}{recipe.name}-{key[:KEY_CHARACTERS]}", tags)
    store.tracker(run_id).params(as_params(recipe))
    write_json(note, {"run_id": run_id, "key": key})
    return run_id


def link_flow_run(night: Night) -> None:
    """Tags both ways: the tracking run names the flow run, the flow run names the tracking run."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    flow_run = context.flow_run
    night.store.tracker(night.run_id).tags(
        {"prefect.flow_run_id": str(flow_run.id), "prefect.flow_run_name": flow_run.name}
    )
    tags = {*flow_run.tags, f"mlflow.run_id:{night.run_id}", f"night:{night.key[:KEY_CHARACTERS]}"}
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=sorted(tags))


def conclude(night: Night, records: Sequence[StageRecord], twin: TrainedTwin | None = None) -> NightReport:
    """Put the headline numbers on the parent run, the summary into Prefect and MLflow, and return it."""
    by_stage = {record.stage: record for record in records}
    everything = [*records, *(twin.records if twin else ())]
    report = NightReport(
        recipe=night.recipe.name,
        key=night.key[:KEY_CHARACTERS],
        records=tuple(everything),
        twin=beside_twin(night, by_stage, twin) if twin else None,
        decision=read_decision(by_stage["register"]),
        chats=tuple(read_samples(by_stage["evaluate"].path)),
        home=night.home,
        export=by_stage["register"].path / "model",
        tracking_uri=night.tracking_uri,
        tracking_ui=tracking_ui(night.tracking_uri),
        run_id=night.run_id,
        experiment_id=night.store.experiment_id(),
    )
    note = note_path(night.home, night.recipe.name, night.key)
    summary = note.with_suffix(".md")
    if not summary.exists() or not all(record.reused for record in everything):
        tracker = night.store.tracker(night.run_id)
        curves = [point for record in everything for point in curve_of(record)]
        room = METRIC_KEYS - len({key for _, point in curves for key in point})
        tracker.metrics(headline_figures(records, report.twin, room))
        for step, point in curves:
            tracker.metrics(point, step=step)
        tracker.tags({f"nightschool.stage.{r.stage}": r.run_id for r in everything})
        tracker.tags({"nightschool.reason": str(report.decision["reason"])})
        if report.twin:
            tracker.tags({"nightschool.twin": "; ".join(report.twin_sentences)})
        summary.write_text(report.as_markdown(), encoding="utf-8")
        tracker.artifact(summary)
        tracker.close("RUNNING")
    note_outcome(note, everything, report.decision)
    if FlowRunContext.get() is not None:
        create_markdown_artifact(report.as_markdown(), key="night", description="Summary of the night")
    return report


def beside_twin(night: Night, by_stage: Mapping[str, StageRecord], twin: TrainedTwin) -> TwinComparison | str:
    """The comparison with the dense twin, or why there is none."""
    if twin.diverged:
        return twin.diverged
    mixture = [by_stage[stage] for stage in TRAINED]
    return compare(night.recipe.model, night.recipe.promote, mixture, twin.records)


def headline_figures(records: Sequence[StageRecord], twin: TwinComparison | str | None, room: int) -> dict[str, float]:
    """The night's numbers, later stages before earlier ones of the same name; at most `room` of them.

    Where there are more, slices of the validation side go first, then sources: the evaluate stage's run has them all.
    """
    figures = twin.as_metrics() if isinstance(twin, TwinComparison) else {}
    figures |= {key: value for record in records for key, value in record.figures.items()}
    kept = sorted(figures, key=lambda key: key.count("."))[:room]
    return {key: figures[key] for key in kept}


def note_outcome(note: Path, records: Sequence[StageRecord], decision: Mapping[str, object]) -> None:
    """Add to a night's note where its stages lie and which version it made: questions need no tracking server then."""
    content = json.loads(note.read_text())
    stages = {record.stage: record.path.name for record in records}
    write_json(note, content | {"stages": stages, "version": decision["version"]})


def curve_of(record: StageRecord) -> Iterator[tuple[int, dict[str, float]]]:
    """A training stage's curves under names of the night, so that nights overlay without opening their stages."""
    names = {"train/loss_ema": f"{record.stage}/loss_ema", "val/bpb": f"{record.stage}/bpb"}
    for point in stage_points(record.path):
        yield int(point["step"]), {name: point[key] for key, name in names.items() if key in point}


def tracking_ui(tracking_uri: str) -> str:
    """The tracking server itself, or the one that `make up` starts over a local store."""
    if tracking_uri.startswith("http"):
        return tracking_uri
    return running_url("mlflow") or f"http://127.0.0.1:{MLFLOW_PORT}"


def promote_version(version: int | None) -> str:
    """Move the champion alias by hand, to `version` or back to the previous champion; says what was done."""
    settings = Settings.load()
    journal, store = Journal(settings.home), Store(settings.tracking_uri, settings.home)
    with journal.lease("by hand"):
        before = store.version_of(CHAMPION)
        if version is None:
            version = store.version_of(PREVIOUS)
            if version is None:
                raise NightStopped("there is no previous champion to go back to; name a version")
        if not store.has_version(version):
            raise NightStopped(f"there is no version {version} of the model; the tracking UI lists the versions")
        store.make_champion(version, "by hand")
        said = f"champion is version {version}, before it was {before or 'none'}"
        journal.note(event="promoted by hand", version=version, before=before)
        log.info(said)
        return said
