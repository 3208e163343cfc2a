"""The batch again: what a training stage read in one step, and what each row and document of it costs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import NightStopped
from tasks.pages.nights.batch import BatchFacts, write_batch_page
from tasks.questions.batch import StepBatch, batch_of
from tasks.questions.history import History
from tasks.questions.lineage import find_model
from tasks.training.curve import stage_points

ROWS_SHOWN = 5
"""In the terminal, if nothing else is asked for."""


def replay(
    home: Path, run: str, step: int, stage: str | None = None, recipe: str | None = None, top: int | None = None,
    page: Path | None = None,
) -> Iterator[str]:  # fmt: skip
    """The batch of a step as lines of text, the rows that cost most first.

    home: folder of the home; run: as `find_model` takes it, of a night that has not ended, too; step: from 1; stage:
    the one whose run it is, else the model's first, if None; recipe: whose version or champion; top: rows to show, in
    the terminal ROWS_SHOWN and on the page all if None; page: where to write the page, None for none.
    Raises NightStopped if there is no such night, stage or step, or what it was made of is gone.
    """
    history = History(home)
    batch = batch_of(find_model(history, run, recipe, unfinished=True), run, stage, step)
    shown = top if page or top else ROWS_SHOWN
    facts = facts_of(history, batch, shown, top)
    written = write_page(page, facts) if page else None
    yield from facts.as_lines(ROWS_SHOWN)
    if written:
        yield from ("", f"page  {written}")


def facts_of(history: History, batch: StepBatch, with_text: int | None, top: int | None) -> BatchFacts:
    """Score a batch; `with_text` of its rows, or all, are decoded, and `top` of them shown."""
    from tasks.questions.weights import nats_of, weights_for  # torch takes seconds to import, and no mistake waits

    rows, record = batch.rows, batch.training.record
    found = weights_for(history, batch)
    points = (point for point in stage_points(record.path) if point["step"] == batch.step)
    return BatchFacts(
        model=batch.model.name, stage=record.name, folder=record.path.name, step=batch.step,
        num_steps=batch.training.input.reading.num_steps,
        rows=batch.told_rows(nats_of(batch, rows, found), with_text), expected=batch.expected(), weights=found.used,
        recorded=next(points, {}), top=top,
    )  # fmt: skip


def write_page(path: Path, facts: BatchFacts) -> Path:
    """Write the page. Raises NightStopped if there is no place for it."""
    try:
        if not path.name:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return write_batch_page(path, facts)
    except OSError as error:
        reason = f"the page cannot be written to {path}: {error.strerror}"
    raise NightStopped(f"{reason}; give --html a file in a folder that can be written to")
