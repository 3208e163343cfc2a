"""What a night's pretraining begins with, decided once a night, and where the trunk is when the night has ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from tasks.errors import StoreAway
from tasks.home.contents.pretrained import read_noted
from tasks.home.digests import digest_of
from tasks.home.records import StageRecord
from tasks.home.trunk import FROM_SCRATCH, Start, Trunk, read_trunk, start_from, trunk_path
from tasks.night.lineage.ancestors import LINEAGE, lineage_of
from tasks.night.lineage.notes import START, add_to_note, note_path, read_note
from tasks.night.lineage.trunks import pretrain_of_version, put_trunk, trunk_of_version
from tasks.recipes.recipe import Recipe
from tasks.stage import Night
from tasks.tracking.versions import CHAMPION

NO_OTHER_MODEL = ("twin", "promote.", "evaluate.", "inspect.", "retention.", "alarms.", "pretrain.start",
                  "pretrain.night_", "pretrain.restart_")  # fmt: skip
"""Settings that may be replaced for a night of the trunk; with others it is a trial, and the trunk stays as it is."""
AGAIN = "begins as the last night did, whose raw data is tonight's: "
log = logging.getLogger("nightschool")


def with_start(night: Night, tokens: StageRecord, inspected: StageRecord) -> Night:
    """The night with what its pretraining begins with, as its note has it, or as is decided now and noted.

    tokens, inspected: tonight's records of these stages.
    """
    path = note_path(night.home, night.recipe.name, night.key)
    note = read_note(path)
    start = start_from(note[START]) if START in note else None
    if start is None or not start.is_there(night.home):
        start = decided(night, tokens, inspected)
        add_to_note(path, {START: asdict(start), LINEAGE: lineage_of(night, start, tokens)})
    log.info("pretraining %s", start.reason)
    night.store.tracker(night.run_id).tags({"nightschool.start": start.reason, "nightschool.trunk": start.parent})
    return replace(night, start=start)


def decided(night: Night, tokens: StageRecord, inspected: StageRecord) -> Start:
    """What pretraining begins with, by the recipe, by where the trunk is, and by what changed since."""
    chosen = night.recipe.pretrain.start
    if chosen == "scratch":
        return FROM_SCRATCH
    start = from_champion(night) if chosen == "champion" else from_trunk(night.home, night.recipe, data_digest(night))
    if start.how == "scratch":
        return start
    if obstacle := why_not(night, start, tokens, inspected):
        return from_scratch(obstacle)
    return with_moments_or_not(night, start)


def from_scratch(why: str) -> Start:
    return replace(FROM_SCRATCH, reason=f"{FROM_SCRATCH.reason}: {why}")


def data_digest(night: Night) -> str:
    """Of the raw data that a night has."""
    return digest_of([located.piece for located in night.raw.pieces])


def from_trunk(home: Path, recipe: Recipe, data: str) -> Start:
    """Go on where the trunk is.

    data: digest of the raw data. A night without new rows is another try of the last one and begins where that did,
    unless the trunk has been moved back since.
    """
    trunk = read_trunk(home, recipe.name)
    if trunk is None:
        damaged = trunk_path(home, recipe.name).exists()
        return from_scratch(
            f"{trunk_path(home, recipe.name)}, which says where the trunk is, cannot be read"
            if damaged
            else "no night of this recipe has left a trunk here"
        )
    if trunk.data == data and not trunk.back and trunk.start.is_there(home):
        return replace(trunk.start, reason=f"{AGAIN}{trunk.start.reason.removeprefix(AGAIN)}")
    which = "the champion's trunk, to which it went back," if trunk.back else "the trunk of"
    return Start(how="trunk", parent=trunk.folder, reason=f"goes on with {which} {trunk.folder}")


def from_champion(night: Night) -> Start:
    """Begin with the champion's pretrained weights, warmed up again, or from scratch if they are not in this home."""
    version, source = champion_version(night)
    if version is None:
        return from_scratch(f"no model of this recipe is in use{source}")
    folder = pretrain_of_version(night.home, night.recipe.name, version)
    if not folder:
        return from_scratch(
            f"the pretrained weights of the champion, version {version}{source}, are not in {night.home / 'data'}"
        )
    reason = f"warms up again from the champion's pretrained weights, version {version}{source}, {folder}"
    return Start(how="weights", parent=folder, checkpoint="checkpoints", reason=reason)


def champion_version(night: Night) -> tuple[int | None, str]:
    """The version in use, and a remark where the registry did not say."""
    try:
        return night.registry.version_of(CHAMPION), ""
    except StoreAway:
        return night.journal.last_promoted(night.recipe.name), " (by the journal: the registry did not answer)"


def why_not(night: Night, start: Start, tokens: StageRecord, inspected: StageRecord) -> str:
    """Why a night cannot, or must not, go on from there; empty if it does."""
    record, config = start.record(night.home), night.recipe.pretrain
    if record is None or not start.is_there(night.home):
        return f"{start.parent}/{start.checkpoint} is not in {night.home / 'data'}"
    noted, model = read_noted(record.path), asdict(night.recipe.model)
    if not noted:
        return f"{start.parent} is of an earlier release, which did not note what it had read"
    if record.config["model"] != model:
        changed = sorted(key for key, value in model.items() if record.config["model"].get(key) != value)
        return f"the model is another one than {start.parent} has ({', '.join(changed)})"
    if noted.get("tokenizer") != tokens.files["tokenizer.json"]:
        return f"the tokenizer is another one than {start.parent} was trained with"
    if config.restart_every_nights and noted["nights"] >= config.restart_every_nights:
        return f"the trunk is {noted['nights']} nights old (pretrain.restart_every_nights)"
    drift, limit = inspected.figures.get("data/drift_psi_max"), night.recipe.inspect.restart_drift_psi
    if limit is not None and drift is not None and drift > limit:
        return f"the data drifted by {drift:.2f} from the champion's, over {limit:g} (inspect.restart_drift_psi)"
    return ""


def with_moments_or_not(night: Night, start: Start) -> Start:
    """Without the optimizer's moments, warmed up again, where they are another optimizer's."""
    record, name = start.record(night.home), night.recipe.pretrain.optim.name
    if start.how == "weights" or record is None or (was := record.config["train"]["optim"]["name"]) == name:
        return start
    return replace(start, how="weights", reason=f"{start.reason}, warmed up again: its optimizer was {was}, not {name}")


def is_trial(replaced: Mapping[str, str]) -> bool:
    """Whether a night's replaced settings make another model than the recipe's: then the trunk is not its own."""
    return any(not setting.startswith(NO_OTHER_MODEL) for setting in replaced)


def move_trunk(night: Night, pretrained: StageRecord, clearly_worse: str, late: bool = False) -> str:
    """Note where the trunk is after a night; returns why it went back to the champion's, where it did.

    pretrained: the night's record; clearly_worse: the gate's words if its model is, else empty.
    late: whether the night was decided on after it had ended: a later one may have moved the trunk on.
    """
    trunk = read_trunk(night.home, night.recipe.name)
    own = trunk is not None and trunk.night == night.key
    note = read_note(note_path(night.home, night.recipe.name, night.key))
    if night.recipe.pretrain.start != "trunk" or is_trial(note.get("replaced", {})) or (late and not own):
        return ""
    if trunk and own and trunk.back and not clearly_worse:
        return ""  # a person went back since: the night that is run again is not on the trunk any more
    back, folder = "", pretrained.path.name
    if clearly_worse and (version := champion_version(night)[0]):
        champions = trunk_of_version(night.home, night.recipe.name, version)
        if not champions:
            log.warning("the trunk of version %d, the champion, is not in %s: it does not go back", version, night.home)
        elif champions != folder:
            back, folder = f"{clearly_worse}: the trunk goes back to that of version {version}", champions
    data = trunk.data if trunk and own else data_digest(night)
    start = start_from(note[START]) if START in note else night.start
    moved = Trunk(folder=folder, night=night.key, data=data, start=start, back=back)
    with night.journal.holding(night.token):  # a night that was overtaken must not move it
        put_trunk(night.journal, night.recipe.name, moved)
    return back
