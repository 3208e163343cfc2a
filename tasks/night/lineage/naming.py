"""What a night is called: its recipe, its day, and what differs from the night before. Nothing is found by a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from prefect.runtime import flow_run

from tasks.home.lines import now
from tasks.home.notes import Note
from tasks.pages.text import RUN_NAME_CHARACTERS, one_line
from tasks.recipes.overrides import as_argument, told
from tasks.recipes.recipe import as_params

DIFFERENCES_SHOWN = 3
MODE = "promote.mode"
"""It follows from whether anything is replaced, and says nothing of the model: names leave it out."""


@dataclass(frozen=True)
class Identity:
    """What is noted of a night, so that the next one can say what differs."""

    params: Mapping[str, str]
    """The recipe's settings by dotted name."""
    data: str
    """Digest of the raw pieces."""
    code: str
    """Digest of the code of all stages."""
    started: str = field(default_factory=now)
    """UTC, as ISO 8601 has it."""

    @property
    def day(self) -> str:
        return self.started[:10]

    def as_note(self) -> dict[str, Any]:
        return asdict(self)


def day_of(note: Mapping[str, Any]) -> str:
    """The day on which a noted night was opened first; empty for a note that does not say."""
    return Identity(**note["identity"]).day if "identity" in note else ""


def differences(params: Mapping[str, str], before: Mapping[str, str]) -> dict[str, str]:
    """The settings whose values differ, with their values now. A setting that one of both does not know is no
    difference: it came with the code."""
    return {key: value for key, value in params.items() if key in before and before[key] != value}


def told_beside(identity: Identity, before: Identity | None) -> list[str]:
    """What differs from the night before, shortest words first of all settings; nothing without such a night."""
    if before is None:
        return []
    changed = told({key: value for key, value in differences(identity.params, before.params).items() if key != MODE})
    return [
        *changed,
        *(["new data"] if identity.data != before.data else []),
        *(["new code"] if identity.code != before.code else []),
    ]


def run_name(recipe: str, day: str, kind: str = "", special: list[str] | None = None) -> str:
    """`demo 2026-11-28 peak_lr=0.001`, for a trial `sweep demo 2026-11-28`; of bounded length."""
    special = special or []
    hidden = len(special) - DIFFERENCES_SHOWN
    shown = [*special[:DIFFERENCES_SHOWN], *([f"+{hidden} more"] if hidden > 0 else [])]
    return one_line(" ".join(filter(None, [kind, recipe, day, *shown])), RUN_NAME_CHARACTERS)


def night_before(notes: Iterable[Note], key: str) -> Identity | None:
    """The newest of the noted nights that is not the one of this key; None if there is none that tells enough."""
    others = (note.content for note in notes if note.content.get("key") != key)
    found = (Identity(**content["identity"]) for content in others if "identity" in content)
    return max(found, key=lambda identity: identity.started, default=None)


def night_run_name() -> str:
    """What a flow run is called until its night knows the one before: its recipe, today, and what is replaced of it."""
    recipe, overrides = flow_run.parameters["recipe"], flow_run.parameters.get("overrides") or {}
    name = recipe["name"] if isinstance(recipe, Mapping) else recipe.name
    order = [] if isinstance(recipe, Mapping) else list(as_params(recipe))
    places = {key: next((i for i, name in enumerate(order) if name.startswith(key)), len(order)) for key in overrides}
    replaced = {key: as_argument(overrides[key]) for key in sorted(overrides, key=places.__getitem__) if key != MODE}
    kind = flow_run.flow_name if flow_run.flow_name != "retrain-nightly" else ""
    return run_name(name, now()[:10], kind or "", told(replaced))


def promotion_run_name() -> str:
    """`promote demo 2026-11-28 version 3`; `rollback demo 2026-11-28`."""
    recipe, version = flow_run.parameters.get("recipe"), flow_run.parameters.get("version")
    special = [] if version is None else [f"version {version}"]
    return run_name(recipe or "", now()[:10], "promote" if special else "rollback", special)
