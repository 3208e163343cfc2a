"""What a recipe registered when all recipes shared one registered model, taken over into the recipe's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient

from tasks.recipes.data_identity import DataIdentity, identity_from
from tasks.tracking.client import known
from tasks.tracking.versions import (
    CHAMPION,
    DATA,
    DECISION,
    DIGEST,
    MODEL_DESCRIPTION,
    OLD_MODEL,
    PREVIOUS,
    model_of,
)

ADOPTED_FROM = "nightschool.adopted_from"
ADOPTING = "nightschool.adopting"
"""Tag of a registered model whose adoption has begun and is not at its end."""
PARENT_RUN = "mlflow.parentRunId"


@dataclass(frozen=True)
class Adopted:
    """Versions that were taken over."""

    model: str
    versions: Mapping[int, int]
    """Their numbers there, by those in the old model."""
    digests: Mapping[int, str]
    """Digests of their weights, by their new numbers."""
    champion: int | None
    """The new number of the champion."""
    unknown: tuple[int, ...]
    """Numbers in the old model whose runs are gone, so that nobody knows their recipe."""

    def __str__(self) -> str:
        moved = ", ".join(f"{old} is now {new}" for old, new in self.versions.items())
        said = f"versions of the registered model {OLD_MODEL} were taken over into {self.model}: {moved}; "
        said += f"champion is {self.champion}" if self.champion else "none of them was ever champion"
        lost = ", ".join(map(str, self.unknown))
        return said + (f"; nobody knows the recipe of {lost}, which stay there" if lost else "")


def adopt_old_versions(client: MlflowClient, recipe: str) -> Adopted | None:
    """Register all versions of a recipe in the old model again, in a model of the recipe's own, which must not exist.

    The champion is the old one if it is of this recipe, else the newest of the recipe that was promoted once. None if
    there is nothing to adopt, or if it was done before; interrupted, it goes on where it stopped.
    """
    model = model_of(recipe)
    if known(client.get_registered_model, OLD_MODEL) is None:
        return None
    own = known(client.get_registered_model, model)
    if own is not None and ADOPTING not in own.tags:
        return None
    found = sorted(client.search_model_versions(f"name='{OLD_MODEL}'"), key=lambda version: int(version.version))
    runs = {int(version.version): known(client.get_run, str(version.run_id)) for version in found}
    old = [v for v in found if (run := runs[int(v.version)]) and run.data.tags.get("nightschool.recipe") == recipe]
    if not old:
        return None
    if own is None:
        client.create_registered_model(model, tags={ADOPTING: "yes"}, description=MODEL_DESCRIPTION)
    before = {v.tags.get(ADOPTED_FROM): int(v.version) for v in client.search_model_versions(f"name='{model}'")}
    numbers: dict[int, int] = {}
    for version in old:
        data = data_of_night(client, runs[int(version.version)], recipe)
        tags = {**version.tags, ADOPTED_FROM: str(version.version), **({DATA: data.as_json()} if data else {})}
        numbers[int(version.version)] = before.get(str(version.version)) or int(
            client.create_model_version(
                model, str(version.source), version.run_id, tags=tags, description=version.description
            ).version
        )
    champion, previous = holders(client, old)
    for alias, number in ((CHAMPION, champion), (PREVIOUS, previous)):
        if number:
            client.set_registered_model_alias(model, alias, str(numbers[number]))
    client.delete_registered_model_tag(model, ADOPTING)
    digests = {numbers[int(version.version)]: version.tags.get(DIGEST, "") for version in old}
    unknown = tuple(number for number, run in runs.items() if run is None)
    return Adopted(model, numbers, digests, numbers[champion] if champion else None, unknown)


def holders(client: MlflowClient, old: list[Any]) -> tuple[int | None, int | None]:
    """Numbers in the old model of the recipe's champion and of the one before it."""
    promoted = [int(version.version) for version in old if DECISION in version.tags]
    held = {alias: known(client.get_model_version_by_alias, OLD_MODEL, alias) for alias in (CHAMPION, PREVIOUS)}
    mine = {alias: int(v.version) for alias, v in held.items() if v and int(v.version) in {int(o.version) for o in old}}
    champion = mine.get(CHAMPION) or next(reversed(promoted), None)
    others = [number for number in promoted if number != champion]
    previous = mine.get(PREVIOUS) or next(reversed(others), None)
    return champion, previous if previous != champion else None


def data_of_night(client: MlflowClient, run: Any, recipe: str) -> DataIdentity | None:
    """What a version was trained on, from the parameters of its night; None if they are gone or were cut."""
    night = known(client.get_run, run.data.tags.get(PARENT_RUN, ""))
    params = night.data.params if night else {}
    try:
        split = {
            "split.val_share": json.loads(params["split.val_share"]),
            "split.salt": params["split.salt"],
            "deduplicate.near_threshold": json.loads(params["deduplicate.near_threshold"]),
        }
        return identity_from(recipe, split, json.loads(params["sources"]))
    except (KeyError, ValueError, TypeError):
        return None
