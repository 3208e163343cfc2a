"""What a raw file is, by its beginning: rows on lines, rows in a JSON array, or something else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from schemas.files.blocks import COMPRESSED, UNREADABLE, blocks_of
from schemas.files.containers import LIST_KEYS, ROW_KEYS, TURN_KEYS, beginning_of, first_value, is_row, rows_misplaced
from schemas.jsonl import KEPT_OF_BAD_LINE_BYTES, Chunk, Fault, parse_chunk

HEAD_BYTES = 64 << 10  # how much of a file is looked at to see what it is
FIRST_LINE_BYTES = 1 << 20  # the same of one that begins with an object over more than that, which may be a row
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DOCUMENT = "one JSON value over several lines; write each row on a line of its own: jq -c . FILE"
TABLE = (
    "a table in CSV or TSV; convert it, in Python: polars.read_csv(FILE).write_ndjson(NEW), "
    r"for TSV with separator='\t'"
)
IN_A_ROW = "JSON values in a row; write each on a line of its own: jq -c . FILE"
COMMAS = "JSON values with commas between; put [ and ] around them"
PATH = "a path; bring the file that it names"
BINARY = {
    rb"\x1f\x8b": "gzip; rename the file to end in .gz",
    rb"\x28\xb5\x2f\xfd": "Zstandard; rename the file to end in .zst",
    rb"PK\x03\x04": "a zip archive; unpack it",
    rb".{257}ustar": "a tar archive; unpack it",
    rb"\x89PNG\r\n": "a PNG image; leave it out",
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
    rb"\s*<(!doctype|html|head|body|\?xml)": "HTML or XML, perhaps an error page; bring the file anew",
    rb"%PDF-": "a PDF document; write its text as rows",
    rb"[^\n]*\}[ \t]*\r[ \t]*\{[^\n]*\Z": "lines that end with carriage returns alone; end them with line feeds",
    rb"PAR1": "Parquet; rename the file to end in .parquet",
    rb"ARROW1": "Arrow; rename the file to end in .arrow",
    rb'"?[a-z_]\w*"?(([,;\t])"?[a-z_]\w*"?)+\r?\n(?!\s*[{\[]).*\2': TABLE,
    rb"\s*(//|#|/\*)[^\n]*\n\s*[\[{/#]": "JSON below a comment; remove the comment",
    rb"\s*((var|let|const|export)\s[^\n=]{,80}|[\w.]{1,80}\s*)=\s*[\[{]": "JavaScript; leave only the JSON of it",
    rb"\s*\[\s*\{\s*'": "a Python list, no JSON; write it with json.dumps",
    rb'\s*((\w+://|~?/|\.\.?/)[^\s"{}[\]]+|[^\s"{}[\]]+\.(jsonl?|gz|zst|bz2|xz|parquet|arrow|feather))\s*\Z': PATH,
}
"""Patterns of a file's beginning. For UTF-16 and UTF-32 without a byte order mark see RFC 4627, section 3."""

STRING = rb'"(?:[^"\\\n]++|\\[^\n])*+"'
FIRST_ROW = re.compile(rb"\s*\[(?P<body>)\s*(?P<row>)\{\s*(?P<key>" + STRING + rb")\s*:")
MEMBER = re.compile(rb"\s*(?P<before>[{,])\s*(?P<key>" + STRING + rb")\s*:\s*")

BEGUN = re.compile(rb'\[\s*(\{\s*("[^"\\\n]*"?\s*)?)?')
"""Of an array of objects no more than the first key."""


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
        while len(head) <= (FIRST_LINE_BYTES if is_one_object(head) else HEAD_BYTES) and not whole:
            block = next(blocks, b"")
            head, whole = head + block, not block
    head = head[: FIRST_LINE_BYTES if is_one_object(head[:HEAD_BYTES]) else HEAD_BYTES]
    if array := array_in(head):
        return array
    if (kind := kind_of(head, whole)) is None:
        return None
    unseen = "" if whole else f"{max(0, size - len(head)):,} bytes were"
    if not whole and path.suffix in COMPRESSED:
        unseen = "the rest was"
    fault = Fault("file_not_jsonl", f"the file looks like {kind}" + f" ({unseen} not looked at)" * bool(unseen))
    return Chunk(1, [0], [head[:KEPT_OF_BAD_LINE_BYTES]], {0: fault})


def is_one_object(head: bytes) -> bool:
    """Whether a beginning is that of an object on one line, which has not ended."""
    return b"\n" not in head.strip() and head.removeprefix(BYTE_ORDER_MARK).lstrip()[:1] == b"{"


def array_in(head: bytes) -> Array | None:
    """The array that a file begins with, if its elements are rows: `[{…}, …]` or `{"data": [{…}, …]}`.

    Arrays of rows may follow on the first. It is none if other JSON values follow, if most lines are good rows by
    themselves, or if the object around it is a row itself or has more lists of objects: which of them are the rows is
    not guessed.
    """
    mark = len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0
    is_wrapped = not (found := FIRST_ROW.match(head, mark))
    text = head.decode("latin-1")
    if not (found := found or wrapped_in(head, text, mark)):
        return None
    begin = len(text) - len(text[mark:].lstrip())
    stop, is_complete = first_value(text, begin)
    if is_complete and not may_end_at(stop, head, found, is_wrapped):
        return None
    if is_complete and is_wrapped:
        members = beginning_of(text[begin:stop])
        if not isinstance(members, dict) or not members.keys().isdisjoint(ROW_KEYS):
            return None
        if sum(isinstance(value, list) and dict in map(type, value) for value in members.values()) > 1:
            return None
    lines = [line for line in head.split(b"\n") if line.strip(b"[], \t\r")]
    rows, _ = parse_chunk(Chunk(1, [], lines, {}))
    if sum(row is not None for row in rows) > max(1, len(lines) / 2) and b"\n," not in head:
        return None
    return Array(found.start("body"), found["key"], is_wrapped)


def may_end_at(stop: int, head: bytes, first: re.Match[bytes], is_wrapped: bool) -> bool:
    """Whether the reader of arrays may have a file whose first ends at `stop`.

    It reads further arrays of rows like the `first` one and says what it leaves, which must be no other JSON values.
    """
    after = head[stop:].lstrip(b", \t\r\n")
    if not after or is_wrapped:
        return not after
    if first["key"].strip(b'"').decode("latin-1") in TURN_KEYS:
        return False
    if BEGUN.fullmatch(after):
        return True
    following = FIRST_ROW.match(after)
    return following["key"] == first["key"] if following else after[:1] not in (b"{", b"[")


def wrapped_in(head: bytes, text: str, at: int) -> re.Match[bytes] | None:
    """The first list of an object whose elements are rows: it is called so, or they have a row's keys."""
    before = b"{"
    while (member := MEMBER.match(head, at)) and member["before"] == before:
        key, before, at = member["key"][1:-1].decode("latin-1"), b",", member.end()
        if key in ROW_KEYS:
            return None
        if (found := FIRST_ROW.match(head, at)) and (key in LIST_KEYS or is_row(element_at(text, found.start("row")))):
            return found
        at, is_whole = first_value(text, at)
        if not is_whole:
            return None
    return None


def element_at(text: str, at: int) -> object:
    stop, is_whole = first_value(text, at)
    return beginning_of(text[at:stop] if is_whole else text[at:])


def kind_of(head: bytes, whole: bool) -> str | None:
    """What the first bytes of a file are, None for jsonl: one good row makes it so, however odd the other lines."""
    if kind := matching(BINARY, head):
        return kind
    head = head.removeprefix(BYTE_ORDER_MARK)
    text = head.decode("utf-8", errors="replace").strip()
    if misplaced := rows_misplaced(text, whole):
        return misplaced
    stop, is_complete = first_value(text)
    over_lines = "\n" in text[:stop].rstrip()
    if whole and over_lines and is_complete and stop == len(text):
        return DOCUMENT
    if "\n" not in text and is_complete and (next_one := re.match(r"[ \t]*(,?)[ \t]*\{", text[stop:])):
        return COMMAS if next_one[1] else IN_A_ROW
    rows, _ = parse_chunk(Chunk(1, [], head.split(b"\n"), {}))
    if any(row is not None for row in rows):
        return None
    return matching(TEXTUAL, head) or (DOCUMENT if over_lines else None)


def matching(kinds: Mapping[bytes, str], head: bytes) -> str | None:
    return next((kind for pattern, kind in kinds.items() if re.match(pattern, head, re.DOTALL | re.IGNORECASE)), None)
