"""Read jsonl as bytes, in chunks: every line keeps its number and byte offset, and no line can break the reader."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, count
from operator import add
from pathlib import Path

import orjson
import zstandard

BLOCK_BYTES = 256 << 10  # split at once: few enough to stay in a core's cache between reading and splitting
ZSTD_INPUT_BYTES = 512  # what comes out of one input has no other bound: four bytes can stand for 128 KiB
LINE_OVERHEAD_BYTES = 64  # what a line costs beside its bytes; a chunk of very short lines would be huge without it
KEPT_OF_BAD_LINE_BYTES = 2_000
HEAD_BYTES = 64 << 10  # how much of a file is looked at to see what it is
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UNREADABLE = (OSError, EOFError, zlib.error, zstandard.ZstdError)  # what reading a broken file can raise


@dataclass(frozen=True)
class Fault:
    """Why a line is not kept."""

    rule: str
    detail: str


@dataclass(frozen=True)
class Chunk:
    """Consecutive lines of a file, without their line endings."""

    first_line: int
    """Number of the first one, from 1."""
    offsets: list[int]
    """Byte offset of each line in the decompressed stream."""
    lines: list[bytes]
    faults: dict[int, Fault]
    """Lines that could not be read whole, by index in the chunk; `lines` has the beginning of each."""


def excerpt(line: bytes) -> str:
    """The line's bounded beginning as text; bytes that are no UTF-8 appear as escapes."""
    return line[:KEPT_OF_BAD_LINE_BYTES].decode("utf-8", errors="backslashreplace")


def blocks_of(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The decompressed bytes of a `.gz` or `.zst` file, or those of a plain file from `start` to `end`, in blocks.

    What could be read before a break is yielded; then the break is raised, as one of UNREADABLE.
    """
    if path.suffix == ".zst":
        yield from zstd_blocks(path)
    elif path.suffix == ".gz":
        with gzip.open(path, "rb") as stream:
            while block := stream.read1(BLOCK_BYTES):  # read() would throw away what precedes a break
                yield block
    else:
        yield from plain_blocks(path, start, math.inf if end is None else end)


def plain_blocks(path: Path, start: int, end: float) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as stream:
        at = stream.seek(start)
        while at < end and (block := stream.read(int(min(BLOCK_BYTES, end - at)))):
            at += len(block)
            yield block
    if at < end < math.inf:
        raise EOFError(f"the file ends at byte {at}, {end} were there before")


def zstd_blocks(path: Path) -> Iterator[bytes]:
    """Frames one after another. The library's stream reader takes a truncated file for a whole one."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    with path.open("rb") as stream:
        while data := stream.read(ZSTD_INPUT_BYTES):
            while data:
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                block = frame.decompress(data)
                yield from (block[at : at + BLOCK_BYTES] for at in range(0, len(block), BLOCK_BYTES))
                data = frame.unused_data
    if not frame.eof:
        raise EOFError("the last compressed frame is not complete")


class ChunkBuilder:
    """Cuts blocks into lines; of a line that goes on beyond its block, no more than the limit is held."""

    def __init__(self, first_line: int, offset: int, max_line_bytes: int) -> None:
        self._chunk, self.held_bytes = Chunk(first_line, [], [], {}), 0
        self._offset, self._limit = offset, max_line_bytes
        self._begun, self.begun_bytes = bytearray(), 0  # kept beginning and true length of the unfinished line

    def feed(self, block: bytes) -> None:
        lines = block.split(b"\n")
        lengths = list(map(len, lines))
        lengths[0] += self.begun_bytes
        self._begun += lines[0][: self._limit + 1 - len(self._begun)]
        if len(lines) == 1:
            self.begun_bytes = lengths[0]
            return
        if self.begun_bytes:
            lines[0] = bytes(self._begun)
        self._begun, self.begun_bytes = bytearray(lines.pop()[: self._limit + 1]), lengths.pop()
        if max(lengths[0], len(block)) > self._limit:
            self._cut_long_lines(lines, lengths)
        if b"\r" in block or lines[0].endswith(b"\r"):
            lines = [line.removesuffix(b"\r") for line in lines]
        if self._offset == 0:
            lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
        # Each line starts where those before it end, with one byte a line feed.
        *offsets, self._offset = map(add, accumulate(lengths, initial=self._offset), count())
        self._chunk.offsets.extend(offsets)
        self._chunk.lines.extend(lines)
        self.held_bytes += len(block) + LINE_OVERHEAD_BYTES * len(lines)

    def _cut_long_lines(self, lines: list[bytes], lengths: Sequence[int]) -> None:
        for index, length in enumerate(lengths):
            carriage_return_over = length == self._limit + 1 and lines[index].endswith(b"\r")
            if length > self._limit and not carriage_return_over:
                detail = f"{length} bytes, the limit is {self._limit} (validate.max_line_bytes)"
                self._chunk.faults[len(self._chunk.lines) + index] = Fault("line_too_long", detail)
                lines[index] = lines[index][:KEPT_OF_BAD_LINE_BYTES]

    def break_off(self, error: Exception) -> None:
        """End with a line that stands for all that could not be read."""
        self._chunk.faults[len(self._chunk.lines)] = Fault("file_unreadable", f"{type(error).__name__}: {error}"[:200])
        self._chunk.lines.append(bytes(self._begun[:KEPT_OF_BAD_LINE_BYTES]))
        self._chunk.offsets.append(self._offset)

    def take(self) -> Chunk:
        """What was gathered, perhaps nothing."""
        chunk = self._chunk
        self._chunk, self.held_bytes = Chunk(chunk.first_line + len(chunk.lines), [], [], {}), 0
        return chunk


def read_chunks(
    path: Path, max_line_bytes: int,
    start: int = 0, end: int | None = None, first_line: int = 1, size_bytes: int = 8 << 20,
) -> Iterator[Chunk]:  # fmt: skip
    """Every line of a file, or of a plain file's bytes from `start` to `end`, in chunks of about `size_bytes` bytes.

    Memory is bounded whatever the bytes are. A line over `max_line_bytes` comes cut, with a `line_too_long` fault; a
    file that breaks off (truncated or mislabelled compression, fewer bytes than `end`) ends with a `file_unreadable`
    line; one that is not jsonl is a `file_not_jsonl` line. Byte order marks and carriage returns belong to no line.
    """
    if start == 0 and (other := what_else(path, end)):
        yield other
        return
    builder = ChunkBuilder(first_line, start, max_line_bytes)
    try:
        for block in blocks_of(path, start, end):
            builder.feed(block)
            if builder.held_bytes >= size_bytes:
                yield builder.take()
        if builder.begun_bytes:
            builder.feed(b"\n")
    except UNREADABLE as error:
        builder.break_off(error)
    if (last := builder.take()).lines:
        yield last


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
    if not line.strip():
        return Fault("line_blank", "nothing but white space")
    try:
        value = orjson.loads(line)
    except ValueError as error:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as bad:
            return Fault("not_utf8", f"byte {bad.start} of the line is {line[bad.start : bad.start + 1]!r}")
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


DOCUMENT = "one JSON value over several lines; write each row on a line of its own"
BINARY = {
    rb"\x1f\x8b": "gzip; rename the file to end in .gz",
    rb"\x28\xb5\x2f\xfd": "Zstandard; rename the file to end in .zst",
    rb"PK\x03\x04": "a zip archive; unpack it",
    rb".{257}ustar": "a tar archive; unpack it",
    rb"\x89PNG\r\n": "a PNG image",
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
    rb'\s*((\w+://|~?/|\.\.?/)[^\s"{}[\]]+|[^\s"{}[\]]+\.(jsonl?|gz|zst|parquet|arrow|feather))\s*\Z': "a path",
}
"""Patterns of a file's beginning. For UTF-16 and UTF-32 without a byte order mark see RFC 4627, section 3."""


def what_else(path: Path, end: int | None = None) -> Chunk | None:
    """The one line that stands for a file that is something else than jsonl; None for jsonl."""
    head, whole, size = b"", False, 0
    with suppress(*UNREADABLE):  # the reader reports it
        size = path.stat().st_size if end is None else end
        blocks = blocks_of(path, 0, end)
        while len(head) <= HEAD_BYTES and not whole:
            block = next(blocks, b"")
            head, whole = head + block, not block
    if (kind := kind_of(head[:HEAD_BYTES], whole)) is None:
        return None
    unseen = "the rest was" if path.suffix in (".gz", ".zst") else f"{max(0, size - HEAD_BYTES)} bytes were"
    fault = Fault("file_not_jsonl", f"the file looks like {kind} ({unseen} not looked at)")
    return Chunk(1, [0], [head[:KEPT_OF_BAD_LINE_BYTES]], {0: fault})


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
