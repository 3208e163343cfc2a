"""What a night's pretraining begins with, decided once a night, and where the trunk is when the night has ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace

from tasks.errors import StoreAway
from tasks.home.contents.pretrained import read_noted
from tasks.home.digests import digest_of
from tasks.home.records import StageRecord
from tasks.home.trunk import FROM_SCRATCH, Start, Trunk, read_trunk, start_from
from tasks.night.lineage.ancestors import LINEAGE, lineage_of
from tasks.night.lineage.notes import START, add_to_note, note_path, read_note
from tasks.night.lineage.trunks import pretrain_of_version, put_trunk, trunk_of_version
from tasks.stage import Night
from tasks.tracking.registry import ModelFilesGone

NO_OTHER_MODEL = ("twin", "promote.", "evaluate.", "inspect.", "retention.", "alarms.", "pretrain.start",
                  "pretrain.night_", "pretrain.restart_")  # fmt: skip
"""Settings that may be replaced for a night of the trunk; with others it is a trial, and the trunk stays as it is."""
log = logging.getLogger("nightschool")


def with_start(night: Night, tokens: StageRecord, inspected: StageRecord) -> Night:
    """The night with what its pretraining begins with, as its note has it, or as is decided now and noted.

    tokens, inspected: tonight's records of these stages.
    """
    path = note_path(night.home, night.recipe.name, night.key)
    note = read_note(path)
    start = start_from(note[START]) if START in note else None
    if start is None or (start.parent and start.record(night.home) is None):
        start = decided(night, tokens, inspected)
        add_to_note(path, {START: asdict(start), LINEAGE: lineage_of(night, start, tokens)})
    log.info("pretraining %s", start.reason)
    night.store.tracker(night.run_id).tags({"nightschool.start": start.reason, "nightschool.trunk": start.parent})
    return replace(night, start=start)


def decided(night: Night, tokens: StageRecord, inspected: StageRecord) -> Start:
    """What pretraining begins with, by the recipe, by where the trunk is, and by what changed since."""
    config, trunk = night.recipe.pretrain, read_trunk(night.home, night.recipe.name)
    if config.start == "scratch":
        return FROM_SCRATCH
    if trunk is None:
        return replace(FROM_SCRATCH, reason="from scratch: no night of this recipe has ended before")
    if trunk.data == data_digest(night) and usable(night, trunk.start):
        return replace(trunk.start, reason=again(trunk))
    start = from_champion(night) if config.start == "champion" else from_trunk(trunk)
    obstacle = why_not(night, start, tokens, inspected)
    return replace(FROM_SCRATCH, reason=f"from scratch: {obstacle}") if obstacle else with_moments_or_not(night, start)


def again(trunk: Trunk) -> str:
    """A night without new rows is another try of the last one, and begins where that did."""
    return f"begins as the last night did, whose raw data is tonight's: {trunk.start.reason}"


def usable(night: Night, start: Start) -> bool:
    return start.how == "scratch" or start.record(night.home) is not None


def data_digest(night: Night) -> str:
    """Of the raw data that a night has."""
    return digest_of([located.piece for located in night.raw.pieces])


def from_trunk(trunk: Trunk) -> Start:
    went_back = " the champion's, to which it went back," if trunk.back else ""
    return Start(how="trunk", parent=trunk.folder, reason=f"goes on with the trunk of{went_back} {trunk.folder}")


def from_champion(night: Night) -> Start:
    """Begin with the champion's pretrained weights, warmed up again, or from scratch if they are not in this home."""
    version, source = champion_version(night)
    folder = pretrain_of_version(night.home, night.recipe.name, version) if version else ""
    if not folder:
        which = f"the pretrained weights of the champion, version {version}, are" if version else "a champion is"
        return replace(FROM_SCRATCH, reason=f"from scratch: {which} not in this home{source}")
    reason = f"warms up again from the champion's pretrained weights, version {version}{source}, {folder}"
    return Start(how="weights", parent=folder, checkpoint="checkpoints", reason=reason)


def champion_version(night: Night) -> tuple[int | None, str]:
    """The version in use, and a remark where the registry did not say."""
    try:
        champion = night.registry.champion()
        return (champion.version if champion else None), ""
    except ModelFilesGone:
        return None, ""
    except StoreAway:
        return night.journal.last_promoted(night.recipe.name), " (by the journal: the registry did not answer)"


def why_not(night: Night, start: Start, tokens: StageRecord, inspected: StageRecord) -> str:
    """Why a night cannot, or must not, go on from there; empty if it does."""
    if start.how == "scratch":
        return start.reason.removeprefix("from scratch: ")
    record, config = start.record(night.home), night.recipe.pretrain
    if record is None or not (record.path / start.checkpoint).is_dir():
        return f"{start.parent}/{start.checkpoint} is not in {night.home / 'data'}"
    noted, model = read_noted(record.path), asdict(night.recipe.model)
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
    back, folder = "", pretrained.path.name
    if clearly_worse and (version := champion_version(night)[0]):
        champions = trunk_of_version(night.home, night.recipe.name, version)
        if champions and champions != folder:
            back, folder = f"{clearly_worse}: the trunk goes back to that of version {version}", champions
    data = trunk.data if trunk and own else data_digest(night)
    start = start_from(note[START]) if START in note else night.start
    moved = Trunk(folder=folder, night=night.key, data=data, start=start, back=back)
    with night.journal.holding(night.token):  # a night that was overtaken must not move it
        put_trunk(night.journal, night.recipe.name, moved)
    return back
