"""Answers as lines of text: which rows are meant, and what a model was trained on. Quick to import."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from data.lookup.exposure import ROWS_NOTED, ReadRows, exposure_of, rows_read, table_of_rows
from data.lookup.fates import fate_of, row_at_line, rows_named
from data.rows.keys import parse_name, row_ids
from data.rows.parts import PartRows
from model.tokens.order import Reading
from tasks.errors import NightStopped
from tasks.home.contents.validated import ScannedPiece
from tasks.pages.text import plural
from tasks.questions.fate_lines import fate_lines
from tasks.questions.history import History, PreparedData, listed
from tasks.questions.lineage import ModelLineage, find_model
from tasks.questions.quarantine import (
    BadLine,
    SearchResult,
    Validation,
    line_at,
    listing,
    newest_validation,
    search_name,
    search_text,
    summary,
    text_of,
)

ROWS_SHOWN = 5
LINES_SHOWN = 10
ASKED_CHARACTERS = 80


@dataclass(frozen=True)
class RowMatches:
    """The rows that a question names, or quarantined lines if it names no row."""

    rows: list[int]
    """Numbers of the first ROWS_SHOWN rows."""
    count: int
    """Number of all rows."""
    lines: list[BadLine]
    """Quarantined lines, if there are no rows."""


def find_rows(data: PreparedData, recipe: str, question: str) -> RowMatches:
    """Rows by name, by file and line, or by text; else quarantined lines. Raises NightStopped if there is nothing."""
    question = question.encode("utf-8", "replace").decode()  # a shell also passes bytes that are not valid UTF-8
    if not question.strip():
        raise NightStopped("ask for a text, a row's name of 32 hexadecimal digits, or FILE:LINE")
    validation = Validation(data.validated.path, recipe, data.pieces)
    if re.fullmatch("[0-9a-f]{32}", question, re.IGNORECASE):
        identity = parse_name(question)
        if (found := rows_by_name(data, identity)).count:
            return found
        searched = search_name(validation, identity, ROWS_SHOWN)
    elif place := re.fullmatch(r"(\S.*):([0-9]{1,10})", question):
        if pieces := pieces_of(data, place[1]):
            return row_by_line(data, validation, pieces, int(place[2]))
        searched = None
    else:
        searched = None
    text = text_of(question) or question
    if (found := rows_by_name(data, row_ids([text]))).count:
        return found
    if not (searched and searched.lines):
        searched = search_text(validation, text, ROWS_SHOWN)
    if not searched.lines:
        raise NightStopped(no_match_message(data, question, searched))
    return RowMatches([], 0, searched.lines)


def no_match_message(data: PreparedData, question: str, searched: SearchResult) -> str:
    shown = question if len(question) <= ASKED_CHARACTERS else f"{question[:ASKED_CHARACTERS]}…"
    some = "" if searched.searched == searched.total else f" of {searched.total:,}"
    labels = sorted({piece.label for piece in data.pieces})
    return (
        f"nothing is known of {shown!r}: no row among {data.corpus.ledger.next_row:,} has that name or text, and "
        f"{searched.searched:,}{some} quarantined lines were searched. A whole text is asked for, white space aside; "
        f"FILE is one of {listed(labels)}"
    )


def rows_by_name(data: PreparedData, identity: np.ndarray) -> RowMatches:
    per_generation = rows_named(data.corpus.ledger, identity)
    first = [int(row) for rows in per_generation for row in rows[:ROWS_SHOWN]][:ROWS_SHOWN]
    return RowMatches(first, sum(map(len, per_generation)), [])


def pieces_of(data: PreparedData, file: str) -> list[ScannedPiece]:
    """Pieces of a file, by its label or the end of it."""
    labels = sorted({p.label for p in data.pieces if p.label == file or p.label.endswith(f"/{file}")})
    if len(labels) > 1 and file not in labels:
        raise NightStopped(f"{file!r:.200} is the end of {len(labels)} files: {listed(labels)}")
    return [piece for piece in data.pieces if labels and piece.label == (file if file in labels else labels[0])]


def row_by_line(data: PreparedData, validation: Validation, pieces: list[ScannedPiece], line: int) -> RowMatches:
    """The row or the quarantined line on a line of a file.
    `pieces`: those of the file, in `data` and `validation`; `line`: its number, from 1. Raises NightStopped without it.
    """
    label = pieces[0].label
    piece = next((piece for piece in pieces if line in piece.lines), None)
    if piece is None:
        raise NightStopped(f"{label} has lines 1 to {sum(p.scanned.read for p in pieces):,}, not line {line:,}")
    part = next(p for p in data.corpus.ledger.parts if p.part.number == piece.number)
    if (row := row_at_line(part, line)) is not None:
        return RowMatches([row], 1, [])
    if (found := line_at(validation.lines(piece), line)) is not None:
        return RowMatches([], 0, [found])
    fate = "blank" if piece.scanned.blank else "neither among the rows nor in the quarantine"
    raise NightStopped(f"{label}:{line} is {fate}; see {data.validated.path}")


def why_row(home: Path, question: str, recipe: str | None = None, every_training: bool = False) -> list[str]:
    """What became of the rows that `question` names, as lines of text.

    `home`: folder of the home; `question`: a text, a name of 32 hexadecimal digits, or FILE:LINE; `recipe`: whose data,
    None for the recipe that ran last; `every_training`: list all training stages that read a row, not the newest.
    Raises NightStopped if the question names no row and no quarantined line.
    """
    history = History(home)
    name = history.recipe(recipe)
    data = history.newest_data(name)
    found = find_rows(data, name, question)
    answer = [f"quarantined  {line.as_text()}" for line in found.lines]
    if found.count > 1:
        shown = "" if found.count <= len(found.rows) else f", the first {len(found.rows)}"
        answer.append(f"{found.count:,} rows bear this name{shown}:")
    for row in found.rows:
        answer += fate_lines(history, data, fate_of(data.corpus, row), every_training)
    return [*answer, as_of(history, name, data)]


def as_of(history: History, recipe: str, data: PreparedData) -> str:
    """The state of the home that the answer is about."""
    newest = history.journal.newest("validate", recipe)
    behind = newest is not None and newest.path != data.validated.path
    newer = f"; {newest.path.name} is newer and has not become tokens so far" if newest and behind else ""
    return f"as of {data.packed.path.name}, recipe {recipe}{newer}"


def who_ate(home: Path, run: str, recipe: str | None = None) -> list[str]:
    """What a model was trained on, line by line: of each of its stages a kind, and what the stage noted at its end."""
    model = find_model(History(home), run, recipe)
    lines = [f"{model.name}: {' + '.join(t.name for t in model.trainings)}"]
    for training in model.readings:
        reading, text = training.input.reading, " of pretraining text" if training.replayed else ""
        lines.append(
            f"  {training.record.stage:<8}  {plural(reading.num_steps, 'step')} of {batch_of(reading)} out of "
            f"{plural(reading.num_rows, 'packed row')}{text}: {reading.epochs:.2f} epochs"
        )
        if reading.replay:
            earlier = int(reading.replay.before.sum(dtype=np.int64))
            lines.append(f"  {'':<8}  and before, as its trunk, {plural(earlier, 'packed row')} of earlier nights")
    parts = model.data.corpus.ledger.parts
    eaten = dict.fromkeys(((part.source, part.kind) for part in parts), (0, 0))
    noted = {t.input.kind: ReadRows.read(t.notes) for t in model.readings}
    eaten |= {(source, kind): of for kind, rows in noted.items() for source, of in rows.sources.items()}
    for (source, kind), (rows, tokens) in eaten.items():
        lines.append(f"  {kind:<8}  {source}: {plural(rows, 'row')}, {plural(tokens, 'token')}")
    lines.append(never_seen(model.data, sum(rows for rows, _ in eaten.values())))
    lines.append(f"the first {ROWS_NOTED} rows (all of them: --all):")
    first = sorted(row for rows in noted.values() for row in rows.first)[:ROWS_NOTED]
    for part in parts:
        if mine := [row for row in first if part.base <= row[0] < part.base + part.count]:
            placed = with_places(model, part, table_of_rows(part, model.data.corpus.rules, *np.array(mine).T))
            lines += [
                f"  {r['name']}  {r['file']}:{r['line']}  {r['source']}  {r['times']:g} times"
                for r in placed.iter_rows(named=True)
            ]
    return lines


def batch_of(reading: Reading) -> str:
    """Rows of a step that were read of these, a mean where a step has others, too."""
    places = sum(pool.places for pool in reading.pools)
    return f"{places / max(1, reading.num_steps):.1f}".removesuffix(".0")


def never_seen(data: PreparedData, seen: int) -> str:
    """Lines that the model has never seen, by reason; with the seen ones they are all that were read."""
    distinct, sides = data.distinct.counts, data.sides.counts
    reasons = {
        "quarantined": distinct["quarantined"],
        "blank": distinct.get("blank", 0),
        "repeating others exactly": distinct["exact_duplicate"],
        "repeating others nearly": distinct["near_duplicate"],
        "validation": sides["pretrain_val"] + sides["chat_val"],
        "held out, unused": sides["held_out_unused"],
    }
    never = distinct["read"] - seen
    reasons["of the train side and read by no step"] = never - sum(reasons.values())
    parts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    return f"never seen: {never:,} of {plural(distinct['read'], 'line')}: {parts}"


def with_places(model: ModelLineage, part: PartRows, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of a part as `table_of_rows` gives them: name, file, line, byte_offset, source, kind, tokens and times."""
    label = pl.lit(model.data.labels[part.part.number]).alias("file")
    source, kind = pl.lit(part.source).alias("source"), pl.lit(part.kind).alias("kind")
    return rows.select("name", label, "line", "byte_offset", source, kind, "tokens", "times")


def who_ate_rows(home: Path, run: str, recipe: str | None = None) -> Iterator[str]:
    """Every row that a model was trained on, as lines of JSON, many at a time."""
    model = find_model(History(home), run, recipe)
    exposure = exposure_of((t.input for t in model.readings), model.data.corpus.ledger.next_row)
    for part in model.data.corpus.ledger.parts:
        for rows in rows_read(exposure, part, model.data.corpus.rules):
            yield with_places(model, part, rows).write_ndjson().rstrip("\n")


def quarantine(home: Path, recipe: str | None, rule: str | None, file: str | None, show: int | None) -> list[str]:
    """Quarantined lines of the last validation: counted if all but `home` and `recipe` are None, else listed.

    `home`: folder of the home; `recipe`: whose validation, None for the last of any; `rule`, `file`: list the lines of
    this rule and of the file with this label; `show`: how many, LINES_SHOWN if None. Raises NightStopped if there is no
    validation, rule or file of that name.
    """
    validation = newest_validation(History(home), recipe)
    if rule is None and file is None and show is None:
        return summary(validation)
    return listing(validation, rule, file, LINES_SHOWN if show is None else show)
