"""The end of a night: headline numbers, curves and summary on the parent run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from prefect.states import Completed

from data.rows.parts import KINDS
from data.sides.slices import read_slices, validation_version
from model.files import write_json, write_text
from tasks.errors import StoreAway, without_password
from tasks.evaluation.enough import why_too_few
from tasks.evaluation.twin import TrainedTwin, TwinComparison, compare
from tasks.home.contents.inspected import read_losses
from tasks.home.contents.registered import EXPORT, read_decision
from tasks.home.contents.scores import read_documents, read_samples
from tasks.home.contents.validated import files_left_out
from tasks.home.journal import KEY_CHARACTERS
from tasks.home.notes import ENDED, STAGES_DONE, WAITING, add_to_note, note_path, read_note, store_label
from tasks.home.records import StageRecord
from tasks.home.stage_table import TRAINING_STAGES
from tasks.night.all_nights import note_end
from tasks.night.candidate import Candidate
from tasks.night.duty.alarms import sound_alarms
from tasks.night.ending import concluded
from tasks.night.incumbent import standing_now
from tasks.night.lineage.start import move_trunk
from tasks.night.page import night_page
from tasks.night.report import NightReport
from tasks.pages.text import artifact_key, plural
from tasks.recipes.recipe import Recipe, as_params, plain_recipe
from tasks.services.mlflow_pages import tracking_ui
from tasks.stage import Night
from tasks.tracking.tracker import DESCRIPTION, REASON, VALIDATION, Tracker
from tasks.training.curve import stage_points

METRIC_KEYS = 40
"""Of one run at the most: more cannot be read side by side."""
HEADLINES = frozenset(f"val/bpb.{kind}" for kind in KINDS)
"""Of the numbers of parts of the validation side those that a night never leaves out."""
log = logging.getLogger("nightschool")
EVALUATED = (*(entry.name for entry in TRAINING_STAGES), "evaluate")
"""Stages that the dense twin has, too."""


def conclude(
    candidate: Candidate, registered: StageRecord | StoreAway, status: str = "RUNNING", late: bool = False
) -> NightReport:
    """Put the headline numbers on the parent run, the summary into Prefect and MLflow, and return it.

    registered: the record of the register stage, or why it has to wait.
    status: of the parent run from now on; of tonight's, `open_night` says the last word.
    late: whether the night had ended before it was decided on.

    Raises NightBusy if the home was taken over: run and note of the night are another owner's then.
    """
    night, twin = candidate.night, candidate.twin
    night.journal.check(night.token)
    records = [*candidate.records, *([registered] if isinstance(registered, StageRecord) else [])]
    everything = [*records, *(twin.records if twin else ())]
    note = note_path(night.home, night.recipe.name, night.key)
    noted = read_note(note)
    report = report_of(candidate, registered, everything, noted)
    tracker = night.store.tracker(night.run_id)
    if report_stages(tracker, report, note, noted.get(STAGES_DONE, {})):
        tracker.tags({VALIDATION: str(validation_version(read_slices(candidate.scored.path)))})
        if isinstance(registered, StageRecord):
            step = max(record.last_step for record in everything)
            tracker.model(night.registry.model, int(registered.counts["version"]), step)
    # Even where nothing is new: an earlier try of the same night may have failed, and said why in the same place.
    tracker.tags({REASON: str(report.decision["reason"]), DESCRIPTION: report.as_markdown()})
    tracker.close(status)
    waits = None
    if isinstance(registered, StoreAway):
        diverged, place = twin.diverged if twin else "", store_label(night.home, night.tracking_uri)
        waits = {"recipe": plain_recipe(night.recipe), "twin_diverged": diverged, "store": place}
    with night.journal.holding(night.token):
        note_made(note, everything, report.decision, candidate.scored.figures.get("val/bpb"), waits)
    worse = report.sentence if report.decision.get("clearly_worse") else ""
    outcome = concluded(candidate, report.decision, move_trunk(night, candidate.record_of("pretrain"), worse, late))
    with night.journal.holding(night.token):
        note_end(night.journal, outcome)
    sound_alarms(night.journal, outcome, night.recipe.alarms, detectable(report.decision))
    with night.journal.holding(night.token):
        note_ended(note, bool(waits))  # last: after a kill before it, all is told again
    if FlowRunContext.get() is not None:
        key = artifact_key(night.recipe.name, "night")
        create_markdown_artifact(report.as_markdown(), key=key, description="Summary of the night")
    return report


def report_of(
    candidate: Candidate,
    registered: StageRecord | StoreAway,
    everything: Sequence[StageRecord],
    noted: Mapping[str, Any],
) -> NightReport:
    """The summary of a night, its page written.

    everything: records of all its stages, those of the twin last; noted: what the night's note holds.
    """
    night, twin = candidate.night, candidate.twin
    report = NightReport(
        recipe=night.recipe.name,
        day=night.day,
        replaced=replaced_settings(night.recipe, noted),
        key=night.key[:KEY_CHARACTERS],
        records=tuple(everything),
        twin=beside_twin(candidate, twin) if twin else None,
        losses=(
            *files_left_out(candidate.record_of("validate").path),
            *(loss.sentence for loss in read_losses(candidate.data.path)),
        ),
        validation=validation_told(candidate),
        decision=decision_of(registered),
        chats=tuple(read_samples(candidate.scored.path)),
        export=candidate.model.path if isinstance(registered, StoreAway) else registered.path / EXPORT,
        tracking_uri=without_password(night.tracking_uri),
        tracking_ui=tracking_ui(night.tracking_uri),
        run_id=night.run_id,
        experiment_id=night.store.experiment_id(),
        reports_waiting=night.store.waiting(),
        now=standing_of(night, registered),
        began=night.start.reason,
    )
    return replace(report, page=night_page(report, candidate, registered))


def detectable(decision: Mapping[str, object]) -> float | None:
    """The smallest gain that the gate could tell from chance, where it compared."""
    value = decision.get("minimum_detectable_bpb")
    return float(value) if isinstance(value, int | float) else None


def report_stages(tracker: Tracker, report: NightReport, note: Path, told: Mapping[str, str]) -> bool:
    """Put the stages' curves and figures on the parent run, and the summary, or return False if all of it is there.

    told: the folders of the stages that were reported before, by name, as the night's note has them. What was reported
    and could not be noted, as the night was killed, is reported again: the run has it once all the same.
    """
    everything = report.records
    fresh = [record for record in everything if told.get(record.name) != record.path.name]
    if not fresh and all(record.reused for record in everything):
        return False
    room = METRIC_KEYS - len({key for record in everything for _, point in curve_of(record) for key in point})
    twin_figures = report.twin if any(record.branch for record in fresh) else None
    tracker.curve(point for record in fresh for point in curve_of(record))
    figures = headline_figures([record for record in fresh if not record.branch], twin_figures, room)
    tracker.final(figures, max(record.last_step for record in everything))
    tracker.tags({f"nightschool.stage.{record.name}": record.run_id for record in everything})
    if report.twin:
        tracker.tags({"nightschool.twin": "; ".join(report.twin_sentences)})
    summary = note.with_suffix(".md")
    write_text(summary, report.as_markdown())
    tracker.artifact(summary)
    if report.page:
        tracker.artifact(report.page)
    return True


def as_final_state(report: NightReport) -> NightReport:
    """The report as a flow returns it: the verdict is the last state's message, the caller gets the report."""
    return cast(NightReport, Completed(message=report.sentence, data=report))


def replaced_settings(recipe: Recipe, noted: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The settings that were replaced for a night, as its note has them: name, value, and the value of the recipe."""
    params = as_params(recipe)
    return [(name, params[name], was) for name, was in noted.get("replaced", {}).items() if name in params]


def conclude_waiting(candidate: Candidate, registered: StageRecord) -> None:
    """Conclude an earlier night once its model is registered, and end its parent run, which nothing else does."""
    conclude(candidate, registered, "FINISHED", late=True)


def validation_told(candidate: Candidate) -> list[str]:
    """On which documents the night's figures are, what was added to them since, and whether they are enough."""
    slices, scored = read_slices(candidate.scored.path), read_documents(candidate.scored.path)
    if not slices:
        return []
    version, sizes = validation_version(slices), scored["num_bytes"]
    grows = sum(not its.full for its in slices.values())
    told = [
        f"version {version}: {plural(version.documents, 'document')}, {version.num_bytes:,} bytes in "
        f"{plural(version.slices, 'slice')}, {f'{grows:,} of which still grow' if grows else 'all full'}"
    ]
    if version.number > 1:
        last = max(its.newest.generation for its in slices.values())
        grew = [(name, its.versions[-2:]) for name, its in slices.items() if its.newest.generation == last]
        added = ", ".join(
            f"{name} {versions[-1].documents - (versions[0].documents if len(versions) > 1 else 0):+,}"
            for name, versions in grew
        )
        told.append(f"documents added since the version before: {added}; figures on other versions do not compare")
    counted = int((sizes > 0).sum()), int(sizes.sum())
    spoken = scored.filter(sizes > 0)
    clusters = spoken["cluster"].n_unique() if "cluster" in spoken.columns else None  # of an earlier release
    too_few = why_too_few(*counted, "there are", candidate.night.recipe.promote, clusters=clusters)
    return [*told, *([too_few] if too_few else [])]


def decision_of(registered: StageRecord | StoreAway) -> dict[str, object]:
    """What `register` noted; the version is None where the decision has to wait for the registry."""
    if isinstance(registered, StoreAway):
        reason = f"{registered}. The next run in this home registers it and decides"
        return {"promoted": False, "version": None, "reason": reason}
    return read_decision(registered.path)


def standing_of(night: Night, registered: StageRecord | StoreAway) -> str:
    """What the registry says now, of a decision that was made earlier; empty for one that was made just now."""
    if isinstance(registered, StoreAway) or not registered.reused:
        return ""
    try:
        return standing_now(night.registry, int(registered.counts["version"]))
    except StoreAway as away:
        return f"who is champion now is not known: {away}"


def beside_twin(candidate: Candidate, twin: TrainedTwin) -> TwinComparison | str:
    """The comparison with the dense twin, or why there is none."""
    if twin.diverged:
        return twin.diverged
    mixture = [candidate.record_of(stage) for stage in EVALUATED]
    return compare(candidate.night.recipe.model, candidate.night.recipe.promote, mixture, twin.records)


def headline_figures(records: Sequence[StageRecord], twin: TwinComparison | str | None, room: int) -> dict[str, float]:
    """The night's numbers, later stages before earlier ones of the same name; at most `room` of them.

    Where there are more, slices of the validation side go first, then what a stage says of its data or its last steps,
    then sources; the log names them. The stages' own runs have them all.
    """
    figures = twin.as_metrics() if isinstance(twin, TwinComparison) else {}
    figures |= {key: value for record in records for key, value in record.figures.items()}
    ordered = sorted(figures, key=how_far_back)
    if left_out := ordered[room:]:
        log.info("on the runs of the stages alone, as a night's has %d metrics: %s", METRIC_KEYS, ", ".join(left_out))
    return {key: figures[key] for key in ordered[:room]}


def how_far_back(key: str) -> int:
    """How early a number is left out: from 0, which is of the model as a whole and of the decision, on."""
    if key in HEADLINES:
        return 0
    if key.startswith("eval/harness."):
        return 1
    if key.partition("/")[0] in ("data", "train", "moe"):
        return 3 + key.count(".")
    return (0, 2, 5)[min(2, key.count("."))]


def note_made(
    note: Path, records: Sequence[StageRecord], decision: Mapping[str, object], bits_per_byte: float | None,
    waits: object = None,
) -> None:  # fmt: skip
    """Add to a night's note where its stages lie, which version it made and how good it is, and what is needed if it
    waits for one.

    Questions, later nights, and the run that registers it later, need no tracking server then.
    """
    stages = {record.name: record.path.name for record in records}
    made = {STAGES_DONE: stages, "version": decision["version"], "bits_per_byte": bits_per_byte}
    add_to_note(note, {**made, **({WAITING: waits} if waits else {})})


def note_ended(note: Path, waits: bool) -> None:
    """Add to a night's note that nothing is left to do for it, but for its model if that `waits`."""
    content = {**read_note(note), ENDED: True}
    if not waits:
        content.pop(WAITING, None)
    write_json(note, content)


def curve_of(record: StageRecord) -> Iterator[tuple[int, dict[str, float]]]:
    """A training stage's curves under names of the night, so that nights overlay without opening their stages."""
    names = {"train/loss_ema": f"{record.name}/loss_ema", "val/bpb": f"{record.name}/bpb"}
    for point in stage_points(record.path):
        yield int(point["step"]), {name: point[key] for key, name in names.items() if key in point}
