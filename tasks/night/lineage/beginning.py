"""What a night of a recipe begins with, as far as its home alone says: known before there is any data of the night."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from tasks.home.contents.pretrained import read_noted
from tasks.home.journal import Journal
from tasks.home.trunk import FROM_SCRATCH, Start, read_trunk, trunk_path
from tasks.night.lineage.trunks import pretrain_of_version
from tasks.recipes.recipe import Recipe

AGAIN = "begins as the last night did, whose raw data is tonight's: "
NEW_ROWS = ""
"""No night's digest of raw data."""


def beginning(home: Path, recipe: Recipe, data: str, champion: int | None = None, source: str = "") -> Start:
    """What the recipe, the trunk and the champion make a night begin with.

    data: digest of its raw data; champion: the version in use; source: a remark on who says so, for messages.
    """
    if recipe.pretrain.start == "scratch":
        return FROM_SCRATCH
    if recipe.pretrain.start == "champion":
        start = from_champion(home, recipe, champion, source)
    else:
        start = from_trunk(home, recipe, data)
    if start.how == "scratch":
        return start
    obstacle = why_unfit(home, recipe, start)
    return from_scratch(obstacle) if obstacle else with_moments_or_not(home, recipe, start)


def expected(home: Path, recipe: Recipe) -> Start:
    """What a night with new rows would begin with, by the home alone: data, tokenizer and registry may still object."""
    return beginning(home, recipe, NEW_ROWS, Journal(home).last_promoted(recipe.name), " (by the journal)")


def from_scratch(why: str) -> Start:
    return replace(FROM_SCRATCH, reason=f"{FROM_SCRATCH.reason}: {why}")


def from_trunk(home: Path, recipe: Recipe, data: str) -> Start:
    """Go on where the trunk is. A night without new rows is another try of the last one and begins where that did,
    unless the trunk has been moved back since."""
    trunk, place = read_trunk(home, recipe.name), trunk_path(home, recipe.name)
    if trunk is None and place.exists():
        return from_scratch(f"{place}, which says where the trunk is, cannot be read")
    if trunk is None:
        return from_scratch("no night of this recipe has left a trunk here")
    if trunk.data == data and not trunk.back and trunk.start.is_there(home):
        return replace(trunk.start, reason=f"{AGAIN}{trunk.start.reason.removeprefix(AGAIN)}")
    which = "the champion's trunk, to which it went back," if trunk.back else "the trunk of"
    return Start(how="trunk", parent=trunk.folder, reason=f"goes on with {which} {trunk.folder}")


def from_champion(home: Path, recipe: Recipe, version: int | None, source: str) -> Start:
    """Begin with the champion's pretrained weights, warmed up again, or from scratch if they are not in this home."""
    if version is None:
        return from_scratch(f"no model of this recipe is in use{source}")
    folder = pretrain_of_version(home, recipe.name, version)
    if not folder:
        return from_scratch(f"the pretrained weights of the champion, version {version}{source}, are not in {home}")
    reason = f"warms up again from the champion's pretrained weights, version {version}{source}, {folder}"
    return Start(how="weights", parent=folder, checkpoint="checkpoints", reason=reason)


def why_unfit(home: Path, recipe: Recipe, start: Start) -> str:
    """Why the recipe cannot, or must not, go on from there; empty if it does."""
    record, every = start.record(home), recipe.pretrain.restart_every_nights
    if record is None or not start.is_there(home):
        return f"{start.parent}/{start.checkpoint} is not in {home / 'data'}"
    noted, model = read_noted(record.path), asdict(recipe.model)
    if not noted:
        return f"{start.parent} is of an earlier release, which did not note what it had read"
    if record.config["model"] != model:
        changed = sorted(key for key, value in model.items() if record.config["model"].get(key) != value)
        return f"the model is another one than {start.parent} has ({', '.join(changed)})"
    if every and noted["nights"] >= every:
        return f"the trunk is {noted['nights']} nights old (pretrain.restart_every_nights)"
    return ""


def with_moments_or_not(home: Path, recipe: Recipe, start: Start) -> Start:
    """Without the optimizer's moments, warmed up again, where they are another optimizer's."""
    record, name = start.record(home), recipe.pretrain.optim.name
    if start.how == "weights" or record is None or (was := record.config["train"]["optim"]["name"]) == name:
        return start
    return replace(start, how="weights", reason=f"{start.reason}, warmed up again: its optimizer was {was}, not {name}")
