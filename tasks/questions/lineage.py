"""From a run, a version or `champion` to the training stages that made the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import NightStopped, StoreAway
from tasks.home.journal import KEY_CHARACTERS
from tasks.home.notes import Note, night_notes, note_of_version
from tasks.home.records import StageRecord
from tasks.home.stage_table import TRAINING_STAGES, entry_of
from tasks.questions.history import FinishedTraining, History, PreparedData, listed

CHAMPION = "champion"
MIN_PREFIX = 8


@dataclass(frozen=True)
class ModelLineage:
    """A model by its name in the question, and the training stages that made it, in order."""

    name: str
    trainings: tuple[FinishedTraining, ...]
    """A stage each, with the rows of its own kind."""
    replayed: tuple[FinishedTraining, ...]
    """Those of them that read text beside these."""
    data: PreparedData

    @property
    def readings(self) -> tuple[FinishedTraining, ...]:
        """All that was read, in order."""
        return self.trainings + self.replayed


def find_model(history: History, run: str, wanted: str | None = None, unfinished: bool = False) -> ModelLineage:
    """The model of a run id (or a prefix of one), of a night's name, a registered version or `champion`, else
    NightStopped.

    wanted: recipe whose version it is; the one that ran last if left out. unfinished: whether it may be of a night, or
    a training stage, that has not ended: the last of its stages is then the one that began last.
    """
    if run == CHAMPION:
        recipe = history.recipe(wanted)
        version, source = champion_version(history, recipe)
        name = f"champion of {recipe}, version {version}{source}"
        return lineage_of(history, name, training_of_version(history, recipe, version))
    is_run = len(run) >= MIN_PREFIX and re.fullmatch("[0-9a-f]+", run)
    if is_run and (found := records_by_run(history, run, unfinished)):
        if len(found) > 1:
            raise NightStopped(f"{run} is the beginning of {len(found)} run ids: {listed(sorted(found))}")
        [(run_id, record)] = found.items()
        if record.stage not in {entry.name for entry in TRAINING_STAGES}:
            raise NightStopped(f"run {run_id} is of the stage {record.name}, which trains nothing")
        return lineage_of(history, f"run {run_id}", record)
    if re.fullmatch("[0-9]{1,8}", run):
        recipe = history.recipe(wanted)
        return lineage_of(history, f"version {int(run)} of {recipe}", training_of_version(history, recipe, int(run)))
    if note := night_named(history, run, wanted):
        return lineage_of(history, f"night {note.name}", last_training_of_night(history, note, unfinished))
    raise NightStopped(
        f"no run {run!r:.80} in {history.home}: name an MLflow run id of a night or a training stage (or its first "
        f"{MIN_PREFIX} digits), a night, a version number, or {CHAMPION}"
    )


def night_named(history: History, name: str, recipe: str | None) -> Note | None:
    """The note of a night by its name: that of its note, or what its run is called. Raises NightStopped for several."""
    named = [note for note in night_notes(history.home, recipe) if name in (note.name, note.content.get("name"))]
    if len(named) > 1:
        several = listed([note.name for note in named])
        raise NightStopped(f"{len(named)} nights are called {name!r:.120}; name one of {several}")
    return named[0] if named else None


def records_by_run(history: History, prefix: str, unfinished: bool = False) -> dict[str, StageRecord]:
    """Records by MLflow run id, for ids with this prefix; a night's is its last training stage.

    unfinished: whether those of stages count that have not ended.
    """
    found: dict[str, StageRecord] = {}
    for note in night_notes(history.home):
        if note.run_id and note.run_id.startswith(prefix):
            found[note.run_id] = last_training_of_night(history, note, unfinished)
    for begun, _ in history.begun() if unfinished else ():
        if begun.run_id.startswith(prefix):
            found[begun.run_id] = begun
    stages = {str(entry.get("stage")) for entry in history.entries} - {"None"}
    for entry in history.published(*stages):
        run_id = str(entry.get("run_id", ""))
        if run_id.startswith(prefix) and run_id not in found:
            record = history.record_of(entry)
            if record is None:
                raise NightStopped(f"what run {run_id} made is not in {history.home / 'data'} any more")
            found[run_id] = record
    return found


def last_training_of_night(history: History, note: Note, unfinished: bool = False) -> StageRecord:
    """The last training stage of a night; `unfinished`: of one that has not ended the last that has begun."""
    trained = [note.stages[entry.name] for entry in TRAINING_STAGES if entry.name in note.stages]
    if not trained and unfinished and (begun := last_begun(history, note)):
        return begun
    if not trained:
        what = "has begun no training that this home knows of" if unfinished else "was not finished"
        raise NightStopped(f"the night {note.name} (run {note.run_id}) {what}; run it again")
    record = StageRecord.read(history.home / "data" / trained[-1])
    if record is None:
        raise NightStopped(
            f"{trained[-1]}, which the night {note.name} trained, is not in {history.home / 'data'} any more"
        )
    return record


def last_begun(history: History, note: Note) -> StageRecord | None:
    """The last training stage of its own that a night has begun."""
    order = [entry.name for entry in TRAINING_STAGES]
    mine = [record for record, run in history.begun() if run == note.run_id and not record.branch]
    return max(mine, key=lambda record: order.index(record.stage), default=None)


def champion_version(history: History, recipe: str) -> tuple[int, str]:
    """The version of a recipe that the model registry calls champion; if it does not answer, the one that was promoted
    last by the journal, and a remark that says so."""
    try:
        version, remark = registered_champion(history.home, recipe), ""
    except StoreAway:
        version = history.journal.last_promoted(recipe)
        remark = " by the journal, as the model registry did not answer"
    if version is None:
        others = [name for name in history.recipes() if name != recipe]
        earlier = any(entry.get("event") == "decided" and "recipe" not in entry for entry in history.entries)
        raise NightStopped(
            f"no model of recipe {recipe} is champion in {history.home}"
            + (f"; for another recipe say --recipe NAME, there are {listed(sorted(others))}" if others else "")
            + ("; versions of an earlier release are taken over by the recipe's next night" if earlier else "")
        )
    return version, remark


def registered_champion(home: Path, recipe: str) -> int | None:
    """The version of a recipe that holds the alias now; a person may have moved it. Raises StoreAway."""
    from tasks.settings import Settings  # MLflow takes seconds to import, which no other question has to wait for
    from tasks.tracking.mlflow_store import Store

    return Store(Settings.load().tracking_uri, home).registry(recipe).version_of(CHAMPION)


def training_of_version(history: History, recipe: str, version: int) -> StageRecord:
    """The training stage whose model was registered as a recipe's version: by the journal if the version was adopted
    from the model that all recipes shared, else by a night's note or its register stage."""
    mine = [entry for entry in history.entries if entry.get("recipe") == recipe]
    adopted = [e for e in mine if e.get("event") == "adopted" and e["version"] == version]
    for entry in adopted:
        if found := training_with_digest(history, str(entry["digest"])):
            return found
    if not adopted and (note := note_of_version(history.home, recipe, version)):
        return last_training_of_night(history, note)
    for entry in () if adopted else history.published("register"):
        register = history.record_of(entry)
        if register is None or register.counts["version"] != version or register.config.get("recipe") != recipe:
            continue
        if found := training_with_digest(history, register.inputs["trained"]):
            return found
    known = sorted({int(entry["version"]) for entry in mine if entry.get("event") in ("decided", "adopted")})
    raise NightStopped(
        f"no night in {history.home} made version {version} of recipe {recipe}, or its folder is gone; the journal has "
        f"{listed([str(v) for v in known]) or 'none'}"
    )


def training_with_digest(history: History, digest: str) -> StageRecord | None:
    """The training stage that made weights of this digest, if its folder is still there."""
    return next(history.records(*(entry.name for entry in TRAINING_STAGES), digest=digest), None) if digest else None


def lineage_of(history: History, name: str, record: StageRecord) -> ModelLineage:
    """The model that a training stage ended with: the stage, and those whose weights it started from."""
    records = [record]
    while start := entry_of(records[0].stage).starts_from:
        digests = {digest for name, digest in records[0].inputs.items() if name != "tokens"}
        starts = (r for r in history.records(start) if r.digest in digests and r.branch == record.branch)
        before = next(starts, None)
        if before is None:
            raise NightStopped(f"what {records[0].path.name} started from is not in {history.home / 'data'} any more")
        records.insert(0, before)
    packed = history.packed_for(*records)
    if packed is None:
        raise NightStopped(
            f"the tokens that {record.path.name} was trained on are not in {history.home / 'data'} any more; "
            f"their digest was {record.inputs['tokens'][:KEY_CHARACTERS]}"
        )
    replayed = tuple(again for r in records if (again := history.replayed(r, packed)))
    return ModelLineage(name, tuple(history.training(r, packed) for r in records), replayed, history.data_of(packed))
