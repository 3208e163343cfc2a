"""Lines of jsonl: a chunk of them, the row that each holds, and the fault of each that holds none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from schemas.guesses import likely_encoding

KEPT_OF_BAD_LINE_BYTES = 2_000
FILE_RULES = ("file_unreadable", "file_not_jsonl")
"""Faults of a line that stands for all of a file, or for its end."""
BLANK = "line_blank"
"""The fault of a line that holds nothing: it is counted, and is no bad line."""


@dataclass(frozen=True)
class Fault:
    """Why a line is not kept."""

    rule: str
    detail: str


@dataclass(frozen=True)
class Chunk:
    """Consecutive lines of a file, without their line endings; of a JSON array, its elements."""

    first_line: int
    """Number of the first one, from 1."""
    offsets: list[int]
    """Byte offset of each line in the decompressed stream."""
    lines: list[bytes]
    faults: dict[int, Fault]
    """Lines that could not be read whole, by index in the chunk; `lines` has the beginning of each."""


def line_too_long(num_bytes: int, limit: int) -> Fault:
    return Fault("line_too_long", f"{num_bytes} bytes, the limit is {limit} (validate.max_line_bytes)")


def broken_off(error: Exception, num_lines: int, at: int, noun: str) -> Fault:
    """Reading met `error` after `num_lines` whole lines, or what else `noun` calls them, that end before byte `at`."""
    why = f"({str(error)[:80] or type(error).__name__})"
    if not num_lines:
        return Fault("file_unreadable", f"nothing of it can be read {why}; bring it anew, or name it after what it is")
    are = f"1 {noun} is" if num_lines == 1 else f"{num_lines:,} {noun}s are"
    return Fault("file_unreadable", f"it breaks off {why}: {are} read, what follows byte {at:,} is lost; bring it anew")


def excerpt(line: bytes) -> str:
    """The line's bounded beginning as text; bytes that are no UTF-8 appear as escapes."""
    return line[:KEPT_OF_BAD_LINE_BYTES].decode("utf-8", errors="backslashreplace")


CONTENT_KEYS = {key: f'"{key}"'.encode() for key in ("text", "conversations", "messages", "instruction", "output")}
SECOND_KEY_AT = len('{"text":0,')  # no key that repeats `text`, the shortest of them, begins before


def parse_chunk(chunk: Chunk) -> tuple[list[dict[str, object] | None], dict[int, Fault]]:
    """The JSON object of each line, or None and a fault. Every index has one of the two."""
    rows: list[dict[str, object] | None] = []
    faults = dict(chunk.faults)
    for line in chunk.lines:
        try:
            row = orjson.loads(line)
        except ValueError:
            row = None
        if type(row) is not dict:
            faults.setdefault(len(rows), fault_of(line))
            row = None
        # Searching for a single quote is five times as fast as for a key, and most text is without quotes.
        elif line.find(b'"', SECOND_KEY_AT) != line.rfind(b'"') and (repeated := repeated_key(line, row)):
            faults.setdefault(len(rows), repeated)
            row = None
        rows.append(row)
    for index in chunk.faults:
        rows[index] = None
    return rows, faults


def fault_of(line: bytes) -> Fault:
    """Why a line is not a JSON object."""
    if not line.decode("utf-8", errors="replace").strip():
        return Fault(BLANK, "nothing but white space")
    try:
        value = orjson.loads(line)
    except ValueError as error:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as bad:
            likely = likely_encoding(line)
            cure = f"; likely {likely}, convert it: iconv -f {likely} -t UTF-8" if likely else ""
            return Fault("not_utf8", f"byte {bad.start} of the line is {line[bad.start : bad.start + 1]!r}{cure}")
        return Fault("not_json", str(error)[:200])
    return Fault("not_an_object", f"a row is an object, this is a {type(value).__name__}")


def repeated_key(line: bytes, row: Mapping[str, object]) -> Fault | None:
    """Names a key that holds content and that the object of a line has twice: readers differ in which they take."""
    for key in row:
        # Forwards from the first one: a search backwards takes several times as long.
        if key in CONTENT_KEYS and line.find(quoted := CONTENT_KEYS[key], line.find(quoted) + 1) >= 0:
            break
    else:
        return None
    objects: list[list[tuple[str, object]]] = []  # pairs of each; the outermost object comes last
    try:
        json.loads(line, object_pairs_hook=objects.append, parse_int=str, parse_float=str)
    except RecursionError:
        return Fault("not_json", "nested too deeply")
    [(key, times)] = Counter(key for key, _ in objects[-1]).most_common(1)
    return Fault("duplicate_key", f"{key!r} appears {times} times") if times > 1 else None
