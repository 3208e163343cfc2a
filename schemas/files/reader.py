"""Read raw files as bytes, in chunks: every row keeps its number and byte offset, and none can break the reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, count
from operator import add
from pathlib import Path

from schemas.files.arrays import RowBuilder
from schemas.files.blocks import UNREADABLE, blocks_of
from schemas.files.kinds import BYTE_ORDER_MARK, Array, what_is
from schemas.jsonl import KEPT_OF_BAD_LINE_BYTES, Chunk, broken_off, line_too_long

LINE_OVERHEAD_BYTES = 64  # what a line costs beside its bytes; a chunk of very short lines would be huge without it


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
                self._chunk.faults[len(self._chunk.lines) + index] = line_too_long(length, self._limit)
                lines[index] = lines[index][:KEPT_OF_BAD_LINE_BYTES]

    def finish(self) -> None:
        """No more bytes come."""
        if self.begun_bytes:
            self.feed(b"\n")

    def break_off(self, error: Exception) -> None:
        """End with a line that stands for all that could not be read."""
        num_lines = len(self._chunk.lines)
        self._chunk.faults[num_lines] = broken_off(error, self._chunk.first_line - 1 + num_lines, self._offset, "line")
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

    Of a file that is a JSON array of rows, its elements are the lines. Memory is bounded whatever the bytes are. A line
    over `max_line_bytes` comes cut, with a `line_too_long` fault; a file that breaks off (truncated or mislabelled
    compression, fewer bytes than `end`) ends with a `file_unreadable` line; one that is something else is a
    `file_not_jsonl` line. Byte order marks and carriage returns belong to no line.
    """
    what = what_is(path, end)
    if isinstance(what, Chunk) and start == 0:
        yield what
        return
    array = what if isinstance(what, Array) else None
    start = max(start, array.body if array else 0)
    builder: ChunkBuilder | RowBuilder = (
        RowBuilder(array, first_line, start, max_line_bytes, is_range=end is not None)
        if array
        else ChunkBuilder(first_line, start, max_line_bytes)
    )
    try:
        for block in blocks_of(path, start, end):
            builder.feed(block)
            if builder.held_bytes >= size_bytes:
                yield builder.take()
        builder.finish()
    except UNREADABLE as error:
        builder.break_off(error)
    if (last := builder.take()).lines:
        yield last
