"""A pretraining row: `{"text": …}`; further keys are allowed and not used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandera.polars as pa
import polars as pl

from schemas.report import Checked, faults_of

CONTROL_CHARACTERS = r"[\x00-\x08\x0b\x0e-\x1f\x7f]"
"""Control characters other than tab, line feed, form feed and carriage return."""


class PretrainRow(pa.DataFrameModel):
    """One document."""

    row: int = pa.Field(unique=True)
    text: str = pa.Field(nullable=False)

    @pa.check("text", name="text_blank")
    @classmethod
    def has_text(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select((pl.col(data.key).str.strip_chars().str.len_bytes() > 0).fill_null(True))

    @pa.check("text", name="text_control_characters")
    @classmethod
    def is_printable(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select((~pl.col(data.key).str.contains(CONTROL_CHARACTERS)).fill_null(True))

    class Config:
        strict = True


def string_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def check_pretrain(rows: Sequence[Mapping[str, object]]) -> Checked:
    """Check parsed rows. The good ones come back as a frame (row, text)."""
    frame = pl.DataFrame(
        {"row": range(len(rows)), "text": [string_or_none(row.get("text")) for row in rows]},
        schema={"row": pl.Int64, "text": pl.String},
    )
    faults = faults_of(PretrainRow, frame)
    return Checked(frame.filter(~pl.col("row").is_in(list(faults))), faults)
