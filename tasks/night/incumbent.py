"""The model in use, as the registry has it now, and what stands in the way of a comparison with it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from tasks.errors import StoreAway
from tasks.home.journal import Journal
from tasks.night.lineage.trunks import back_by_hand
from tasks.recipes.data_identity import why_not_comparable
from tasks.recipes.recipe import data_identity
from tasks.stage import Night
from tasks.tracking.registry import ModelFilesGone, ModelVersion, Registry
from tasks.tracking.versions import CHAMPION

log = logging.getLogger("nightschool")


@dataclass(frozen=True)
class Incumbent:
    """What a night's model is judged beside."""

    champion: ModelVersion | None
    obstacle: str = ""
    """Why nothing can be compared with the champion that there is, or was; empty if there never was one."""


def champion_of(night: Night) -> ModelVersion | None:
    """The recipe's version in use; None if there is none. Raises StoreAway, ModelFilesGone."""
    take_over(night.registry, night.journal)
    return night.registry.champion()


def incumbent_of(night: Night) -> Incumbent:
    """The champion, and whether tonight's model can be compared with it. Raises StoreAway.

    What this home promoted last and somebody took out of use in the registry itself is marked as rolled back.
    """
    try:
        champion = champion_of(night)
    except ModelFilesGone as gone:
        return Incumbent(None, str(gone))
    lost = night.journal.last_promoted(night.recipe.name)
    if champion:
        note_other_hands(night, champion.version, lost)
        why_not = why_not_comparable(champion.data, data_identity(night.recipe))
        return Incumbent(champion, f"the champion is version {champion.version}, and {why_not}" if why_not else "")
    if lost is None:
        return Incumbent(None)
    return Incumbent(None, what_became_of(night.registry, lost))


def what_became_of(registry: Registry, lost: int) -> str:
    """Why a version that this home promoted last is the champion no more, where none is. Raises StoreAway."""
    was = f"version {lost} of {registry.model} was the champion and"
    if registry.has_version(lost):
        return f"{was} had the alias {CHAMPION} taken from it in the registry"
    if registry.recipe in registry.recipes():
        return f"{was} was deleted in the registry"
    return f"{was} is not in this registry, which has no model {registry.model}"


def follow_other_hands(night: Night) -> None:
    """Look for a champion that somebody put back in the registry itself, before the night begins to train: the trunk
    goes back with it. A registry that is away is asked again when the night's model is judged."""
    try:
        if champion := night.registry.version_of(CHAMPION):
            note_other_hands(night, champion, night.journal.last_promoted(night.recipe.name))
    except StoreAway:
        return


def note_other_hands(night: Night, champion: int, promoted: int | None) -> None:
    """Mark the version that was `promoted` last as rolled back if the registry has an older champion, and put the trunk
    back where that one came from."""
    registry = night.registry
    gone_back = promoted is not None and champion < promoted and registry.has_version(promoted)
    if promoted and gone_back and not registry.rolled_back_version(promoted):
        with night.journal.holding(night.token):
            registry.mark_rolled_back(promoted, f"in the registry itself, to version {champion}")
            if back := back_by_hand(night.journal, night.recipe.name, champion):
                log.info("version %d is champion again by other hands: %s", champion, back)


def take_over(registry: Registry, journal: Journal) -> None:
    """Adopt what the recipe registered when all recipes shared one model. Raises StoreAway."""
    if adopted := registry.adopt_old_versions():
        log.warning("%s", adopted)  # once in the life of a home, and version numbers change
        for version in sorted(adopted.digests, key=lambda number: number == adopted.champion):
            journal.note(
                event="adopted", recipe=registry.recipe, version=version, digest=adopted.digests[version],
                promoted=version == adopted.champion,
            )  # fmt: skip


def standing_now(registry: Registry, version: int) -> str:
    """What the registry says now of a version that was decided on earlier, and of the champion. Raises StoreAway."""
    parts = []
    if not registry.has_version(version):
        parts.append(f"version {version} was deleted in the registry")
    elif withdrawn := registry.rolled_back_version(version):
        parts.append(f"version {version} was rolled back {withdrawn.note}")
    holder = registry.standing()
    if holder is None:
        parts.append("no version is champion now")
    elif holder.version == version:
        parts.append(f"it is the champion now ({holder.note})")
    else:
        parts.append(f"champion now is version {holder.version} ({holder.note})")
    return "; ".join(parts)
