"""What a night's pretraining begins with, decided once a night, and where the trunk is when the night has ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from tasks.errors import StoreAway
from tasks.home.contents.pretrained import read_noted
from tasks.home.digests import digest_of
from tasks.home.notes import LINEAGE, START, add_to_note, note_of_folder, note_path, read_note
from tasks.home.records import StageRecord
from tasks.home.trunk import Start, Trunk, read_trunk, start_from
from tasks.night.lineage.ancestors import began_since, lineage_of
from tasks.night.lineage.beginning import beginning, from_scratch, why_unfit
from tasks.night.lineage.trunks import put_trunk, trunk_of_version
from tasks.stage import Night
from tasks.tracking.versions import CHAMPION

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
    if start is None or not start.is_there(night.home):
        start = decided(night, tokens, inspected)
        add_to_note(path, {START: asdict(start), LINEAGE: lineage_of(night, start, tokens)})
    log.info("pretraining %s", start.reason)
    night.store.tracker(night.run_id).tags({"nightschool.start": start.reason, "nightschool.trunk": start.parent})
    return replace(night, start=start)


def decided(night: Night, tokens: StageRecord, inspected: StageRecord) -> Start:
    """What pretraining begins with, by the recipe, by where the trunk is, and by what changed since."""
    version = champion_version(night) if night.recipe.pretrain.start == "champion" else (None, "")
    start = beginning(night.home, night.recipe, data_digest(night), *version)
    obstacle = why_not(night, start, tokens, inspected)
    return from_scratch(obstacle) if obstacle else start


def data_digest(night: Night) -> str:
    """Of the raw data that a night has."""
    return digest_of([located.piece for located in night.raw.pieces])


def champion_version(night: Night) -> tuple[int | None, str]:
    """The version in use, and a remark where the registry did not say."""
    try:
        return night.registry.version_of(CHAMPION), ""
    except StoreAway:
        return night.journal.last_promoted(night.recipe.name), " (by the journal: the registry did not answer)"


def why_not(night: Night, start: Start, tokens: StageRecord, inspected: StageRecord) -> str:
    """Why tonight's data lets a night not go on from there; empty if it does."""
    record = start.record(night.home)
    if record and read_noted(record.path).get("tokenizer") != tokens.files["tokenizer.json"]:
        return f"the tokenizer is another one than {start.parent} was trained with"
    drift, limit = inspected.figures.get("data/drift_psi_max"), night.recipe.inspect.restart_drift_psi
    if limit is None or drift is None or drift <= limit or began_since_champion(night, start):
        return ""
    return f"the data drifted by {drift:.2f} from the champion's, over {limit:g} (inspect.restart_drift_psi)"


def began_since_champion(night: Night, start: Start) -> str:
    """The day on which the training that a night would go on with began from scratch, if that was after the champion
    was made: it began for this drift already, and needs nights to become as good."""
    parent, version = note_of_folder(night.home, night.recipe.name, start.parent), champion_version(night)[0]
    if parent is None or version is None:
        return ""
    return began_since(night.home, night.recipe.name, parent.content.get(LINEAGE, []), version)


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
        if obstacle := why_it_stays(night, pretrained, version, champions, note.get(LINEAGE, [])):
            log.warning("the trunk does not go back to that of version %d, the champion: %s", version, obstacle)
        elif champions != folder:
            back, folder = f"{clearly_worse}: the trunk goes back to that of version {version}", champions
    data = trunk.data if trunk and own else data_digest(night)
    start = start_from(note[START]) if START in note else night.start
    moved = Trunk(folder=folder, night=night.key, data=data, start=start, back=back)
    with night.journal.holding(night.token):  # a night that was overtaken must not move it
        put_trunk(night.journal, night.recipe.name, moved)
    return back


def why_it_stays(
    night: Night, pretrained: StageRecord, version: int, champions: str, lineage: Sequence[Mapping[str, Any]]
) -> str:
    """Why the trunk does not go back to the champion's though its model is worse; empty if it does.

    A training that began from scratch needs nights to become as good; were it sent back to one that it cannot, or must
    not, go on with, each night would begin from scratch again.

    pretrained: tonight's record; version, champions: the champion and the folder of its trunk, empty if it has none.
    lineage: of tonight.
    """
    if not champions:
        return f"it is not in {night.home}"
    start = Start(how="trunk", parent=champions, reason="")
    if unfit := why_unfit(night.home, night.recipe, start):
        return unfit
    record = start.record(night.home)
    if record and read_noted(record.path)["tokenizer"] != read_noted(pretrained.path).get("tokenizer"):
        return f"the tokenizer is another one than {champions} was trained with"
    if began := began_since(night.home, night.recipe.name, lineage, version):
        return f"this training began from scratch on {began}, after that version was made"
    return ""
