"""Parquet and arrow tables as jsonl lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from data.rows.piece import Piece
from model.files import made_once
from schemas.files.containers import ROW_KEYS
from tasks.home.code import code_version
from tasks.sources.pieces import TABLES, RawFile

READ_KEYS = (*ROW_KEYS, "input", "history", "system", "tools")
"""Columns that some format reads; the others need not be text."""
TABLE_ROWS = 1_000
"""Rows of a table converted at once."""


def as_jsonl(file: RawFile, pieces: Sequence[Piece], downloads: Path) -> Path:
    """The file itself, or a table as jsonl, row by row, made once for the same bytes.

    Raises OSError, ValueError or ArrowException if the table cannot be read.
    """
    if file.path.suffix not in TABLES or not pieces:
        return file.path
    [whole] = pieces
    local = downloads / file.source / f"{whole.digest[:16]}-{code_version(__name__)[:8]}" / f"{file.path.stem}.jsonl"

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            for batch in batches_of(file.path):
                stream.writelines(lines_of(batch))

    return made_once(local, write)


def batches_of(path: Path) -> Iterator[pa.RecordBatch]:
    """A table in batches of at most TABLE_ROWS rows."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as table:
            yield from table.iter_batches(TABLE_ROWS)
        return
    with pa.memory_map(str(path)) as stream:
        try:
            table = pa.ipc.open_file(stream)
            batches = (table.get_batch(number) for number in range(table.num_record_batches))
        except pa.ArrowInvalid:  # what the `datasets` library writes
            batches = pa.ipc.open_stream(stream)
        for batch in batches:
            yield from (batch.slice(at, TABLE_ROWS) for at in range(0, batch.num_rows, TABLE_ROWS))


def lines_of(batch: pa.RecordBatch) -> list[bytes]:
    """Rows as lines of JSON."""
    try:
        row_type = pa.struct(list(batch.schema))
        rows = [without_nulls(row, row_type) for row in batch.to_pylist()]
        return [orjson.dumps(row, default=str_of, option=orjson.OPT_APPEND_NEWLINE) for row in rows]
    except (UnicodeDecodeError, orjson.JSONEncodeError):
        if batch.num_rows == 1:
            return [line_of(batch)]
        return [line for at in range(batch.num_rows) for line in lines_of(batch.slice(at, 1))]


def line_of(batch: pa.RecordBatch) -> bytes:
    """One row of which some value is no text: a key that rows are read by keeps its bytes, and the reader finds that
    they are no UTF-8; of any other the line says how many bytes there were."""
    members = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            value = orjson.dumps(without_nulls(column[0].as_py(), column.type), default=str_of)
        except (UnicodeDecodeError, orjson.JSONEncodeError) as error:
            value = raw_string(column) if name in READ_KEYS else orjson.dumps(f"not text: {error}"[:80])
        members.append(orjson.dumps(name) + b":" + value)
    return b"{" + b",".join(members) + b"}\n"


def raw_string(column: pa.Array) -> bytes:
    """The bytes of a single value as a string of JSON, which is no UTF-8; of nested values no more than that."""
    try:
        value = column.cast(pa.binary())[0].as_py()
    except pa.ArrowException:
        value = b"\xff"
    return json.dumps(value.decode("utf-8", "surrogateescape"), ensure_ascii=False).encode("utf-8", "surrogateescape")


def without_nulls(value: Any, kind: pa.DataType) -> Any:
    """A value of a type without the null members of its structs, for a table gives each row the members of all rows.

    What the table holds as JSON is as it was written, nulls included.
    """
    if value is None:
        return None
    if isinstance(kind, pa.JsonType):
        return orjson.loads(value)
    if pa.types.is_struct(kind):
        return {f.name: without_nulls(value[f.name], f.type) for f in kind if value[f.name] is not None}
    if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        return [without_nulls(held, kind.value_type) for held in value]
    return value


def str_of(value: object) -> str:
    """Text where the table has bytes; anything else that JSON has not as Python writes it."""
    return value.decode() if isinstance(value, bytes) else str(value)
