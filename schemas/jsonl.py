"""Read jsonl as bytes: every line keeps its file, number and byte offset, and no line can break the reader."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import orjson
import zstandard

BLOCK_BYTES = 1 << 20
KEPT_OF_BAD_LINE_BYTES = 2_000
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Fault:
    """Why a line is not kept."""

    rule: str
    detail: str


@dataclass(frozen=True)
class Line:
    """One line without its line ending; `fault` is set if the bytes could not be read whole."""

    number: int
    """From 1."""
    byte_offset: int
    """Of the first byte, in the decompressed stream."""
    data: bytes
    fault: Fault | None = None

    def excerpt(self) -> str:
        """The line's bounded beginning as text; bytes that are no UTF-8 appear as escapes."""
        return self.data[:KEPT_OF_BAD_LINE_BYTES].decode("utf-8", errors="backslashreplace")


def open_stream(path: Path) -> BinaryIO:
    """Open a plain, `.gz` or `.zst` file for reading bytes."""
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix == ".zst":
        reader = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True, closefd=True)
        return cast(BinaryIO, reader)
    return path.open("rb")


def read_lines(path: Path, max_line_bytes: int) -> Iterator[Line]:
    """Yield every line of a file, in bounded memory.

    A line over `max_line_bytes` comes cut, with a `line_too_long` fault; a file that breaks off while reading
    (truncated or mislabelled compression) ends with one `file_unreadable` line. A byte order mark and carriage
    returns before a line feed are not part of a line.
    """
    number, offset = 0, 0
    buffer, length = bytearray(), 0  # the kept beginning and the true length of the unfinished line
    try:
        with open_stream(path) as stream:
            while block := stream.read(BLOCK_BYTES):
                *finished, rest = block.split(b"\n")
                for piece in finished:
                    number += 1
                    buffer += piece[: max_line_bytes + 1 - len(buffer)]
                    length += len(piece)
                    yield make_line(number, offset, bytes(buffer), length, max_line_bytes)
                    offset += length + 1
                    buffer, length = bytearray(), 0
                buffer += rest[: max_line_bytes + 1 - len(buffer)]
                length += len(rest)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        fault = Fault("file_unreadable", f"{type(error).__name__}: {error}"[:200])
        yield Line(number + 1, offset, bytes(buffer), fault)
        return
    if length:
        yield make_line(number + 1, offset, bytes(buffer), length, max_line_bytes)


def make_line(number: int, offset: int, data: bytes, length: int, max_line_bytes: int) -> Line:
    if length > max_line_bytes:
        detail = f"{length} bytes, the limit is {max_line_bytes} (validate.max_line_bytes)"
        return Line(number, offset, data[:KEPT_OF_BAD_LINE_BYTES], Fault("line_too_long", detail))
    if number == 1:
        data = data.removeprefix(BYTE_ORDER_MARK)
    return Line(number, offset, data.removesuffix(b"\r"))


def parse(line: Line) -> dict[str, object] | Fault:
    """The JSON object of a line, or why there is none."""
    if line.fault:
        return line.fault
    if not line.data.strip():
        return Fault("line_blank", "nothing but white space")
    try:
        value = orjson.loads(line.data)
    except orjson.JSONDecodeError as error:
        try:
            line.data.decode("utf-8")
        except UnicodeDecodeError as bad:
            return Fault("not_utf8", f"byte {bad.start} of the line is {line.data[bad.start : bad.start + 1]!r}")
        return Fault("not_json", str(error)[:200])
    if not isinstance(value, dict):
        return Fault("not_an_object", f"a row is an object, this is a {type(value).__name__}")
    return value


def read_chunks(
    path: Path, max_line_bytes: int, rows: int = 20_000, size_bytes: int = 32 << 20
) -> Iterator[list[Line]]:
    """Lines in chunks of at most `rows` lines and about `size_bytes` bytes."""
    chunk: list[Line] = []
    held = 0
    for line in read_lines(path, max_line_bytes):
        chunk.append(line)
        held += len(line.data)
        if len(chunk) >= rows or held >= size_bytes:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
