"""Trials: what is run on a recipe's own data to choose its settings; tracked apart from nights, never registered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from model.files import write_text
from tasks.home.notes import note_path
from tasks.pages.text import artifact_key
from tasks.stage import Night
from tasks.tracking.tracker import Tracker

LR_SEARCH, SWEEP = "lr-search", "sweep"
"""Kinds of trials, as the tag of their parent runs has them."""


def trial_note(night: Night, kind: str) -> Path:
    """Where a trial notes its run and what must be known when it is run again."""
    return note_path(night.home, night.recipe.name, night.key, kind)


def conclude_trial(night: Night, kind: str, markdown: str, tell: Callable[[Tracker], None]) -> None:
    """Put the result on the parent run, the first time that there is one, and the summary into Prefect."""
    summary = trial_note(night, kind).with_suffix(".md")
    if not summary.exists():
        tracker = night.store.tracker(night.run_id)
        tell(tracker)
        write_text(summary, markdown)
        tracker.artifact(summary)
        tracker.close("RUNNING")
    if FlowRunContext.get() is not None:
        create_markdown_artifact(
            markdown, key=artifact_key(night.recipe.name, kind), description=f"Result of the {kind}"
        )
