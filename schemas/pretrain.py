"""A pretraining row: `{"text": …}`; further keys are allowed and not used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandera.polars as pa
import polars as pl

from schemas.report import Checked, faults_of

CONTROL_CODES = (*range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F)
"""Control characters other than tab, line feed, form feed and carriage return."""
CONTROL_TRIPLES = tuple(
    "[" + "".join(rf"\x{code:02x}" for code in CONTROL_CODES[i : i + 3]) + "]" for i in range(0, len(CONTROL_CODES), 3)
)
"""The same as classes of three: a class that small is searched with vector instructions, a larger one byte by byte."""
VISIBLE = r"[^\s\p{Z}\p{Cf}\p{Default_Ignorable_Code_Point}\x{2800}]"
"""Neither white space nor zero width, soft hyphens, fillers, variation selectors, byte order marks, blank braille."""
REPLACEMENT_CHARACTER = "\ufffd"
"""What decoders write for bytes that they cannot read."""
MAX_REPLACED_SHARE = 0.05


def holds_text(frame: pl.LazyFrame, name: str) -> pl.LazyFrame:
    """Whether there is more than white space and characters that nobody sees."""
    return frame.select(pl.col(name).str.contains(VISIBLE).fill_null(True))


def is_printable(frame: pl.LazyFrame, name: str) -> pl.LazyFrame:
    """Whether there are no control characters."""
    column = pl.col(name)
    return frame.select(~pl.any_horizontal(column.str.contains(triple) for triple in CONTROL_TRIPLES).fill_null(False))


def is_decodable(frame: pl.LazyFrame, name: str) -> pl.LazyFrame:
    """Whether replacement characters are few: text of another encoding, read as UTF-8, is full of them."""
    column = pl.col(name)
    spotless = frame.select(~column.str.contains(REPLACEMENT_CHARACTER, literal=True).fill_null(False)).collect()
    if spotless.to_series().all():  # counting takes ten times as long as finding none
        return spotless.lazy()
    replaced = column.str.count_matches(REPLACEMENT_CHARACTER, literal=True)
    return frame.select((replaced <= column.str.len_chars() * MAX_REPLACED_SHARE).fill_null(True))


class PretrainRow(pa.DataFrameModel):
    """One document."""

    row: int = pa.Field(unique=True)
    text: str = pa.Field(nullable=False)

    @pa.check("text", name="text_blank")
    @classmethod
    def text_holds_something(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return holds_text(data.lazyframe, data.key)

    @pa.check("text", name="text_control_characters")
    @classmethod
    def text_is_printable(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return is_printable(data.lazyframe, data.key)

    @pa.check("text", name="text_undecodable")
    @classmethod
    def text_is_decodable(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return is_decodable(data.lazyframe, data.key)

    class Config:
        strict = True


def string_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def string_series(name: str, values: Sequence[object]) -> pl.Series:
    """A string column; a value that is not a string becomes null.

    The values are looked at here because polars alone takes a minute to refuse one that is nested deeply.
    """
    if not set(map(type, values)) <= {str, type(None)}:
        values = [string_or_none(value) for value in values]
    return pl.Series(name, values, dtype=pl.String)


def check_texts(texts: Sequence[object]) -> Checked:
    """Check one text a row. The good ones come back as a frame (row, text)."""
    frame = pl.DataFrame([pl.Series("row", range(len(texts)), dtype=pl.Int64), string_series("text", texts)])
    faults = faults_of(PretrainRow, frame)
    return Checked(without(frame, faults), faults)


def without(frame: pl.DataFrame, rows: Mapping[int, object]) -> pl.DataFrame:
    """The lines of a frame whose `row` is not among `rows`."""
    return frame.filter(~pl.col("row").is_in(list(rows))) if rows else frame
