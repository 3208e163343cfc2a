"""The logs of a training stage beside its curve, for pages about it: plan, outcome, load of experts, what happened.

They are in no digest and decide nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from model.files import append_line, write_json
from tasks.home.records import LOGS

PLAN, OUTCOME, LOAD, EVENTS = "plan.json", "outcome.json", "expert-load.json", "events.jsonl"
ROLL_BACK, BRANCH, NO_NUMBER = "roll_back", "branch", "no_number"
"""Kinds of events that pages have words for; changes of experts are in the curve."""


def tell_plan(logs: Path, planned: Mapping[str, float]) -> None:
    """Steps, seconds and memory before the first step, under the names of their metrics."""
    write_json(logs / PLAN, planned)


def tell_outcome(logs: Path, actual: Mapping[str, float], load_LE: Sequence[Sequence[float]]) -> None:
    """What it came to, and how often each expert of each layer was chosen lately (layers, experts)."""
    write_json(logs / OUTCOME, actual)
    write_json(logs / LOAD, load_LE)


def tell_event(logs: Path, step: int, kind: str, detail: str = "") -> None:
    """Something happened after a step, which a chart marks."""
    append_line(logs / EVENTS, {"step": step, "kind": kind, "detail": detail}, flush=False)


def told_numbers(folder: Path, name: str) -> dict[str, float]:
    """PLAN or OUTCOME of a finished stage, without the prefix of their metrics; empty for a stage that told none."""
    told: Mapping[str, float] = read(folder / LOGS / name) or {}
    return {key.rpartition("/")[2]: float(value) for key, value in told.items()}


def told_load(folder: Path) -> list[list[float]]:
    """The load of a finished stage (layers, experts); empty where it was not told, or the model is dense."""
    return [[float(count) for count in row] for row in read(folder / LOGS / LOAD) or []]


def told_events(folder: Path) -> list[dict[str, Any]]:
    """The events of a finished stage in order of steps, each with `step`, `kind` and `detail`.

    Steps that an interruption made again tell the same again: each event is there once.
    """
    path = folder / LOGS / EVENTS
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with suppress(ValueError):  # a writer that is killed leaves half a line
            event = json.loads(line)
            found[event["step"], event["kind"]] = event
    return [found[key] for key in sorted(found)]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
