"""The fate of one row as lines of text: what became of it, where it was packed, and who read it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from data.lookup.exposure import last_step
from data.lookup.fates import Fate
from data.lookup.places import Place, Segment
from tasks.pages.text import plural
from tasks.questions.history import FinishedTraining, History, PreparedData, listed

SEGMENTS_SHOWN, TRAININGS_SHOWN, ANSWERS_SHOWN = 5, 5, 5


def where(data: PreparedData, place: Place) -> str:
    return f"{data.labels[place.part.part.number]}:{place.line}"


def fate_lines(history: History, data: PreparedData, fate: Fate, every_training: bool) -> list[str]:
    """The fate of one row, with its place and related rows; the parameters are those of `training_lines`."""
    place = fate.place

    def named(row: int) -> str:
        other = data.corpus.place(row)
        return f"{where(data, other)}, name {other.name}"

    lines = [
        f"{where(data, place)}  byte {place.byte_offset:,}  name {place.name}",
        f"  {place.part.kind}/{place.domain}, {plural(place.num_bytes, 'byte')} of text, source {place.part.source}",
        f"  {fate.what}" + (f" {fate.slice}" if fate.slice else ""),
    ]
    if fate.original is not None:
        lines.append(f"    of {named(fate.original)}")
    if fate.what.startswith("near"):
        lines.append(f"    cluster {fate.cluster}")
    if fate.kept is not None:
        lines.append(f"    kept is {named(fate.kept)}")
    lines += [f"    {side} is {named(row)}" for side, row in fate.both_sides]
    lines += lost_lines(data, fate)
    if fate.segments:
        lines += training_lines(history, data, fate, every_training)
    return lines


def lost_lines(data: PreparedData, fate: Fate) -> list[str]:
    """The answers of a conversation that no packed row holds, each with its reason and the row that would."""
    length = int(data.packed.config["data"]["sequence_length_tokens"])
    lines = [
        f"    answer {lost.number}, of {plural(lost.tokens, 'token')} with {lost.needed - lost.tokens:,} of context, "
        f"does not fit into a row of {length:,} slots; data.sequence_length_tokens: {lost.needed} holds it"
        for lost in fate.lost[:ANSWERS_SHOWN]
    ]
    more = len(fate.lost) - ANSWERS_SHOWN
    return [*lines, f"    and {plural(more, 'more answer')}"] if more > 0 else lines


def training_lines(history: History, data: PreparedData, fate: Fate, every_training: bool) -> list[str]:
    """Where a train row was packed, and which training stages read it how often.

    `history`: of the home; `data`: which the row is part of; `fate`: of the row; `every_training`: list all stages, not
    TRAININGS_SHOWN.
    """
    segments = fate.segments
    lines = [
        f"    {s.shard} row {s.row:,}, slots {s.start} to {s.start + s.length - 1} (packed row {s.packed_row:,})"
        for s in segments[:SEGMENTS_SHOWN]
    ]
    if len(segments) > SEGMENTS_SHOWN:
        lines.append(f"    and {len(segments) - SEGMENTS_SHOWN:,} more segments")
    stages = history.trainings_on(data.packed, fate.place.part.kind)
    stage_lines = [
        line
        for stage in islice(stages, None if every_training else TRAININGS_SHOWN)
        for line in reading_lines(stage, segments)
    ]
    if next(stages, None):
        stage_lines.append("    more training stages: --all")
    return lines + (stage_lines or ["    no training stage of this home has read it"])


def reading_lines(training: FinishedTraining, segments: Iterable[Segment]) -> list[str]:
    """How often a training stage read the packed rows of a row."""
    reading = training.input.reading
    rows = {s.packed_row for s in segments if s.packed_row < reading.num_rows}
    if not rows:
        return []
    steps = sorted({step for row in rows if (step := last_step(training.notes, reading, row))})
    epochs = max(reading.pool_of(row).whole_epochs for row in rows)
    trunk = max(int(reading.replay.before[row]) for row in rows) if reading.replay else 0
    whole = plural(epochs, "whole epoch") if epochs else ""
    partial = f"step{'s' * (len(steps) > 1)} {listed([f'{step:,}' for step in steps])}" if steps else ""
    earlier = f"{plural(trunk, 'time')} by its trunk on earlier nights" if trunk else ""
    often = " and ".join(filter(None, (earlier, whole, partial))) or "not read"
    again = "as text beside its own rows, " if training.replayed else ""
    return [f"    {training.name} (run {training.record.run_id}): {again}{often}"]
