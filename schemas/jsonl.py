"""Read jsonl as bytes: every line keeps its file, number and byte offset, and no line can break the reader."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import zstandard

BLOCK_BYTES = 1 << 20
ZSTD_INPUT_BYTES = 2 << 10
"""Small, because what comes out of one piece of input has no other bound: a few bytes can stand for 128 KiB."""
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


def blocks_of(path: Path) -> Iterator[bytes]:
    """The decompressed bytes of a plain, `.gz` or `.zst` file, block by block.

    What could be read before a break is yielded; then the break is raised, as OSError, EOFError or the library's own.
    """
    if path.suffix == ".zst":
        yield from zstd_blocks(path)
        return
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        while block := stream.read1(BLOCK_BYTES):  # read() would throw away what precedes a break
            yield block


def zstd_blocks(path: Path) -> Iterator[bytes]:
    """Frames one after another. The library's stream reader takes a truncated file for a whole one."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    with path.open("rb") as stream:
        while data := stream.read(ZSTD_INPUT_BYTES):
            while data:
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(data)
                data = frame.unused_data
    if not frame.eof:
        raise EOFError("the last compressed frame is not complete")


def read_lines(path: Path, max_line_bytes: int) -> Iterator[Line]:
    """Yield every line of a file, in bounded memory.

    A line over `max_line_bytes` comes cut, with a `line_too_long` fault; a file that breaks off while reading
    (truncated or mislabelled compression) ends with one `file_unreadable` line. A byte order mark and carriage
    returns before a line feed are not part of a line.
    """
    number, offset = 0, 0
    buffer, length = bytearray(), 0  # the kept beginning and the true length of the unfinished line
    try:
        for block in blocks_of(path):
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
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        fault = Fault("file_unreadable", f"{type(error).__name__}: {error}"[:200])
        yield Line(number + 1, offset, bytes(buffer), fault)
        return
    if length:
        yield make_line(number + 1, offset, bytes(buffer), length, max_line_bytes)


def make_line(number: int, offset: int, data: bytes, length: int, max_line_bytes: int) -> Line:
    carriage_return_over = length == max_line_bytes + 1 and data.endswith(b"\r")
    if length > max_line_bytes and not carriage_return_over:
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
