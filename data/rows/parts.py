"""A validated piece on disk: its rows, and what later stages ask of every row without reading any.

`NNNNN.rows.arrow` holds the content, one record batch a chunk; `NNNNN.ids`, `.sketches` and `.facts` are raw records,
one a row in the same order, so that ten million rows can be compared through memory maps. `NNNNN.quarantine.jsonl`
holds the lines that were not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from data.files import arrow_writer, raw_records, read_batches, to_arrow
from data.rows.keys import ID_DTYPE
from data.rows.sketch import SKETCH_BYTES
from schemas.rows import TURNS


@dataclass(frozen=True)
class PartRows:
    """Where the rows of a part stand in the numbering of all rows."""

    part: Part
    base: int
    """Number of its first row."""
    count: int
    kind: str
    source: str


def places_in_parts(parts: Sequence[PartRows], rows: np.ndarray) -> Iterator[tuple[PartRows, np.ndarray]]:
    """Each part that holds some of the rows given by number, ascending, and their places in it."""
    for p in parts:
        inside = slice(*np.searchsorted(rows, (p.base, p.base + p.count)))
        if inside.start < inside.stop:
            yield p, rows[inside].astype(np.int64) - p.base


KINDS = ("pretrain", "chat")
CONTENT = {"pretrain": pl.Schema({"text": pl.String}), "chat": pl.Schema({"conversations": TURNS})}
"""Payload column, by kind of source."""
FACTS_DTYPE = np.dtype([("byte_offset", "<u8"), ("line", "<u4"), ("num_bytes", "<u4"), ("domain", "u1")])
"""Of one row: where it stood, UTF-8 bytes of its text, code of its domain."""


def content_column(kind: str) -> str:
    return next(iter(CONTENT[kind]))


def texts_of(content: pl.Series) -> pl.Series:
    """One text a row; a conversation's is its turns, a line each."""
    return content if content.dtype == pl.String else turns_of(content, pl.lit(True))


def spoken_of(content: pl.Series) -> pl.Series:
    """One text a row, by which rows are alike: what is asked and learnt, a conversation without its system turns, which
    hold prompts and tools."""
    return content if content.dtype == pl.String else turns_of(content, pl.element().struct.field("role") != "system")


def asked_of(content: pl.Series) -> pl.Series:
    """The part of that text that may be a prompt of many rows: of a conversation what the user says, else all of it."""
    return content if content.dtype == pl.String else turns_of(content, pl.element().struct.field("role") == "user")


def turns_of(content: pl.Series, which: pl.Expr) -> pl.Series:
    """The contents of some turns of each conversation, a line each."""
    contents = pl.element().filter(which).struct.field("content")
    return content.to_frame("c").select(pl.col("c").list.eval(contents).list.join("\n")).to_series()


def named_by(content: pl.Series) -> pl.Series:
    """What each row is named by: its text and, where answers of a conversation are not learned, the places of those."""
    if content.dtype == pl.String:
        return content
    turn = pl.element().struct
    context = (turn.field("role") == "assistant") & ~turn.field("learned").fill_null(True)
    places = pl.col("c").list.eval(context.arg_true().cast(pl.String)).list.join(",")
    rows = content.to_frame("c").select(places.alias("places"), texts_of(content).alias("text"))
    # No content holds a control character, so no text can look like this.
    marked = pl.col("text") + pl.lit("\0context ") + pl.col("places")
    return rows.select(pl.when(pl.col("places") == "").then("text").otherwise(marked)).to_series()


@dataclass(frozen=True)
class Part:
    """A validated piece, by folder and number."""

    folder: Path
    number: int

    def path(self, suffix: str) -> Path:
        return self.folder / f"{self.number:05d}.{suffix}"

    @property
    def files(self) -> list[Path]:
        return [self.path(s) for s in ("rows.arrow", "ids", "sketches", "facts", "quarantine.jsonl")]

    def rows(self) -> Iterator[pl.DataFrame]:
        """Content, chunk by chunk."""
        return read_batches(self.path("rows.arrow"))

    @property
    def ids(self) -> np.ndarray:
        """Names, (N,) of ID_DTYPE."""
        return raw_records(self.path("ids"), ID_DTYPE)

    @property
    def sketches(self) -> np.ndarray:
        """(N, SKETCH_BYTES) uint8."""
        return raw_records(self.path("sketches"), np.dtype(np.uint8), SKETCH_BYTES)

    @property
    def facts(self) -> np.ndarray:
        """(N,) of FACTS_DTYPE."""
        return raw_records(self.path("facts"), FACTS_DTYPE)


@dataclass
class PartWriter:
    """Writes a part chunk by chunk."""

    part: Part
    kind: str
    _writer: pa.ipc.RecordBatchFileWriter = field(init=False)

    def __enter__(self) -> PartWriter:
        schema = to_arrow(pl.DataFrame(schema=CONTENT[self.kind])).schema
        self._writer = arrow_writer(self.part.path("rows.arrow"), schema)
        self._streams = [self.part.path(suffix).open("wb") for suffix in ("ids", "sketches", "facts")]
        return self

    def write(self, content: pl.Series, ids: np.ndarray, sketches: np.ndarray, facts: np.ndarray) -> None:
        """One chunk; the arrays have a row for each of `content`."""
        table = to_arrow(content.alias(content_column(self.kind)).to_frame())
        self._writer.write_table(table)
        for stream, array in zip(self._streams, (ids, sketches, facts), strict=True):
            stream.write(np.ascontiguousarray(array).tobytes())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()
        for stream in self._streams:
            stream.close()


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """What a piece held. `read == valid + quarantined + blank`."""

    read: int
    valid: int
    quarantined: int
    blank: int = 0
    """Lines of white space alone: nothing is lost with them."""
    num_bytes: int
    """UTF-8 bytes of the valid rows' text."""
    merged: int = 0
    """Valid conversations in which several turns of a role were made one."""
    rules: dict[str, Any]
    """Quarantined lines by rule, with a few examples each."""
    statistics: dict[str, Any]
