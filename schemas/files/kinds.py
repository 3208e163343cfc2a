"""What a raw file is, by its beginning: rows on lines, rows in a JSON array, or something else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from schemas.files.blocks import COMPRESSED, UNREADABLE, blocks_of
from schemas.jsonl import KEPT_OF_BAD_LINE_BYTES, Chunk, Fault, parse_chunk

HEAD_BYTES = 64 << 10  # how much of a file is looked at to see what it is
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DOCUMENT = "one JSON value over several lines; write each row on a line of its own"
BINARY = {
    rb"\x1f\x8b": "gzip; rename the file to end in .gz",
    rb"\x28\xb5\x2f\xfd": "Zstandard; rename the file to end in .zst",
    rb"PK\x03\x04": "a zip archive; unpack it",
    rb".{257}ustar": "a tar archive; unpack it",
    rb"\x89PNG\r\n": "a PNG image",
    rb"BZh[1-9]1AY": "bzip2; rename the file to end in .bz2",
    rb"\xfd7zXZ\0": "xz; rename the file to end in .xz",
    rb"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it",
    rb"Rar!\x1a\x07": "a RAR archive; unpack it",
    rb"\x04\x22\x4d\x18": "LZ4; unpack it",
}
TEXTUAL = {
    rb"\xff\xfe\0\0|\0\0\xfe\xff|[^\0]\0\0\0|\0\0\0[^\0]": "UTF-32; convert it to UTF-8",
    rb"\xff\xfe|\xfe\xff|[^\0]\0[^\0]\0|\0[^\0]\0[^\0]": "UTF-16; convert it to UTF-8",
    rb"version https://git-lfs": "a Git LFS pointer; git lfs pull brings the file",
    rb"\s*<(!doctype|html|head|body|\?xml)": "HTML or XML, perhaps an error page",
    rb"%PDF-": "a PDF document",
    rb"[^\n]*\}[ \t]*\r[ \t]*\{[^\n]*\Z": "lines that end with carriage returns alone; end them with line feeds",
    rb"PAR1": "Parquet; rename the file to end in .parquet",
    rb"ARROW1": "Arrow; rename the file to end in .arrow",
    rb'"?[a-z_]\w*"?(([,;\t])"?[a-z_]\w*"?)+\r?\n(?!\s*[{\[]).*\2': "a table in CSV or TSV",
    rb'\s*((\w+://|~?/|\.\.?/)[^\s"{}[\]]+|[^\s"{}[\]]+\.(jsonl?|gz|zst|bz2|xz|parquet|arrow|feather))\s*\Z': "a path",
}
"""Patterns of a file's beginning. For UTF-16 and UTF-32 without a byte order mark see RFC 4627, section 3."""


ROW_KEYS = ("text", "content", "conversations", "messages", "instruction", "output", "prompt", "chosen")
"""An object with one of them is a row, whatever lists it holds."""
STRING = rb'"(?:[^"\\\n]++|\\[^\n])*+"'
FIRST_ROW = rb"\[(?P<body>)\s*\{\s*(?P<key>" + STRING + rb")\s*:"
SCALAR = STRING + rb"|[-\w.+]+|\{[^{}]*+\}|\[[^\[\]{}]*+\]"
ARRAY = re.compile(rb"\s*" + FIRST_ROW)
WRAPPED = re.compile(
    rb"\s*\{(?:\s*" + STRING + rb"\s*:\s*(?:" + SCALAR + rb")\s*,)*?"
    rb'\s*"(?:data|rows|train|examples|instances|records|items|samples)"\s*:\s*' + FIRST_ROW
)


@dataclass(frozen=True)
class Array:
    """A file whose rows are the elements of a JSON array."""

    body: int
    """Offset just after its bracket."""
    key: bytes
    """The first key of its first row, in quotes."""
    is_wrapped: bool
    """Whether it is the value of a key."""


def what_is(path: Path, end: int | None = None) -> Array | Chunk | None:
    """The array of rows that a file is; the one line that stands for something else; None for jsonl."""
    head, whole, size = b"", False, 0
    with suppress(*UNREADABLE):  # the reader reports it
        size = path.stat().st_size if end is None else end
        blocks = blocks_of(path, 0, end)
        while len(head) <= HEAD_BYTES and not whole:
            block = next(blocks, b"")
            head, whole = head + block, not block
    head = head[:HEAD_BYTES]
    if array := array_in(head):
        return array
    if (kind := kind_of(head, whole)) is None:
        return None
    unseen = "the rest was" if path.suffix in COMPRESSED else f"{max(0, size - HEAD_BYTES)} bytes were"
    fault = Fault("file_not_jsonl", f"the file looks like {kind} ({unseen} not looked at)")
    return Chunk(1, [0], [head[:KEPT_OF_BAD_LINE_BYTES]], {0: fault})


def array_in(head: bytes) -> Array | None:
    """The array that a file begins with, if its elements are rows: `[{…}, …]` or `{"data": [{…}, …]}`.

    It is none if more JSON values follow, if most lines are good rows by themselves, or if the object around it is a
    row itself or has more lists of objects: which of them are the rows is not guessed.
    """
    mark = len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0
    is_wrapped = not (found := ARRAY.match(head, mark))
    if not (found := found or WRAPPED.match(head, mark)):
        return None
    text = head[mark:].decode("latin-1").lstrip()
    stop, is_complete = first_value(text)
    if is_complete and text[stop:].strip():
        return None
    if is_complete and is_wrapped:
        members = json.loads(text[:stop])
        lists = [value for value in members.values() if isinstance(value, list) and dict in map(type, value)]
        if len(lists) > 1 or not members.keys().isdisjoint(ROW_KEYS):
            return None
    lines = [line for line in head.split(b"\n") if line.strip(b"[], \t\r")]
    rows, _ = parse_chunk(Chunk(1, [], lines, {}))
    if sum(row is not None for row in rows) > max(1, len(lines) / 2) and b"\n," not in head:
        return None
    return Array(found.start("body"), found["key"], is_wrapped)


def kind_of(head: bytes, whole: bool) -> str | None:
    """What the first bytes of a file are, None for jsonl: one good row makes it so, however odd the other lines."""
    if kind := matching(BINARY, head):
        return kind
    head = head.removeprefix(BYTE_ORDER_MARK)
    text = head.decode("utf-8", errors="replace").strip()
    stop, is_complete = first_value(text)
    over_lines = "\n" in text[:stop].rstrip()
    if whole and over_lines and is_complete and stop == len(text):
        return DOCUMENT
    rows, _ = parse_chunk(Chunk(1, [], head.split(b"\n"), {}))
    if any(row is not None for row in rows):
        return None
    return matching(TEXTUAL, head) or (DOCUMENT if over_lines else None)


def matching(kinds: Mapping[bytes, str], head: bytes) -> str | None:
    return next((kind for pattern, kind in kinds.items() if re.match(pattern, head, re.DOTALL | re.IGNORECASE)), None)


def first_value(text: str) -> tuple[int, bool]:
    """Where the JSON value at the beginning ends, or where it stops being JSON, and which of the two."""
    try:
        return json.JSONDecoder(parse_int=str, parse_float=str).raw_decode(text)[1], True
    except json.JSONDecodeError as error:
        return error.pos, False
    except RecursionError:
        return 0, False
