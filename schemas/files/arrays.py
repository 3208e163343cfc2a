"""Rows in a JSON array: the range of bytes of each, found by its brackets, whatever is broken in one of them."""

from __future__ import annotations

import re

from schemas.files.containers import first_value
from schemas.files.kinds import Array
from schemas.jsonl import KEPT_OF_BAD_LINE_BYTES, Chunk, Fault, broken_off, line_too_long

ROW_OVERHEAD_BYTES = 64
HELD_BYTES = 4 << 20
"""How much of a row is held, if lines may not be longer, to see where it is broken off and the next one begins."""
STRING = rb'"(?:[^"\\\n]++|\\[^\n])*+'
"""Without its last quote. No string of JSON goes over the end of a line, so that one without an end ends there."""
GAP = re.compile(rb"[\s,]*+")
WORDS = re.compile(rb'(?:[^",{}\[\]]++|' + STRING + rb'"?+)*+')
NO_BRACKETS = re.compile(rb'(?:[^"{}\[\]]++|' + STRING + rb'")*+')
OPEN_STRING = re.compile(STRING)
CLOSING = re.compile(
    rb'\s*(?:,\s*"[^"\\]*+"\s*:\s*(?:' + STRING + rb'"|[-\w.+]+|\{[^{}]*\}|\[[^\[\]{}]*\])\s*)*\}?\s*\Z'
)
"""What may follow the array: members of the object around it that hold no rows, and its end."""
NEXT_ARRAY = re.compile(rb"[\s,]*\[?\s*")
"""What may stand between two arrays."""


class RowBuilder:
    """Cuts blocks of a JSON array into its elements.

    An element ends where its brackets close, so a missing comma spoils nothing. One that is no JSON and holds what
    looks like the beginning of another, a `{` and the key that rows begin with, is broken off there.
    """

    def __init__(self, array: Array, first_line: int, offset: int, max_line_bytes: int, is_range: bool) -> None:
        self._is_range = is_range  # of a file's bytes, which need not hold the end of the array
        self._chunk, self.held_bytes = Chunk(first_line, [], [], {}), 0
        self._limit, self._is_wrapped, self._key = max_line_bytes, array.is_wrapped, array.key
        row = rb"(?=\{\s*" + re.escape(array.key) + rb"\s*:)"
        self._next_row, self._row_after_end = re.compile(rb"[,\s]" + row), re.compile(rb"[,\s\[]" + row)
        self._buffer, self._base, self._at = b"", offset, 0  # bytes, the offset of their first, how far they are read
        self._start, self._kept, self._depth = offset, b"", 0  # of the element that is begun
        self._num_dropped = 0  # bytes after the array
        self.end = offset
        """Just after the last whole row."""
        self.is_closed = False

    def feed(self, block: bytes) -> None:
        self._buffer += block
        while self._inside() if self._depth else self._between():
            pass
        used = self._start - self._base if self._depth else self._at
        if self._depth and not self._kept and len(self._buffer) - used > max(HELD_BYTES, self._limit + 1):
            if (cut := self._break_in(self._buffer[used:])) is not None:
                self._break_off_at(cut)
                return self.feed(b"")
            self._kept = self._buffer[used : used + KEPT_OF_BAD_LINE_BYTES]
        if self._kept:  # the rest of what was read is not needed, but for the quote of a string that goes on
            used = self._at
            if self._buffer[used : used + 1] == b'"':
                dangling = b"\\" if OPEN_STRING.match(self._buffer, used).end() < len(self._buffer) else b""  # type: ignore[union-attr]
                self._base += len(self._buffer) - 1 - len(dangling)
                self._buffer, self._at = b'"' + dangling, 0
                return None
        self._buffer, self._base, self._at = self._buffer[used:], self._base + used, self._at - used
        if self.is_closed and len(self._buffer) > HELD_BYTES:
            self._num_dropped += len(self._buffer) - KEPT_OF_BAD_LINE_BYTES
            self._buffer = self._buffer[:KEPT_OF_BAD_LINE_BYTES]
        return None

    def _between(self) -> bool:
        """Go to the beginning of the next element; False where bytes are missing for that."""
        buffer = self._buffer
        if self.is_closed:
            return self._reopen()
        at = self._at = GAP.match(buffer, self._at).end()  # type: ignore[union-attr]
        if at == len(buffer):
            return False
        self._start = self._base + at
        if buffer[at] in b"{[":
            self._depth, self._at = 1, at + 1
            return True
        if buffer[at] == ord("]"):
            self.is_closed = True
            return self._reopen()
        end = max(at + 1, WORDS.match(buffer, at).end())  # type: ignore[union-attr]
        if end == len(buffer) and end - at < HELD_BYTES:
            return False
        self._emit(end)
        return True

    def _reopen(self) -> bool:
        """After the end of the array: go on where there is another row all the same, or another array of them."""
        if self._is_wrapped or not (found := self._row_after_end.search(self._buffer, self._at)):
            return False
        self.is_closed = False
        if NEXT_ARRAY.fullmatch(self._buffer, self._at + 1, found.end()):
            self._at = found.end()
        else:
            self._emit(found.end())
        return True

    def _inside(self) -> bool:
        """Go to the end of the element that is begun; False where bytes are missing for that."""
        buffer, at, depth = self._buffer, self._at, self._depth
        while (at := NO_BRACKETS.match(buffer, at).end()) < len(buffer):  # type: ignore[union-attr]
            if buffer[at] == ord('"'):
                end = OPEN_STRING.match(buffer, at).end()  # type: ignore[union-attr]
                if buffer[end : end + 2] in (b"", b"\\"):
                    break
                at = end
                continue
            depth += 1 if buffer[at] in b"{[" else -1
            at += 1
            if not depth:
                data = buffer[self._start - self._base : at] if not self._kept else b""
                cut = self._break_in(data) if data.count(self._key) > 1 else None
                if cut is None:
                    self._emit(at)
                else:
                    self._break_off_at(cut)
                return True
        self._at, self._depth = at, depth
        return False

    def _break_in(self, data: bytes) -> int | None:
        """Where in an element that is no JSON another begins."""
        stop, is_whole = first_value(data.decode("latin-1"))
        found = None if is_whole and stop == len(data) else self._next_row.search(data, max(1, stop - 1))
        return found.end() if found else None

    def _break_off_at(self, cut: int) -> None:
        """End the element that is begun after `cut` bytes."""
        self._emit(self._start - self._base + cut)

    def _emit(self, end: int) -> None:
        """A line of what was begun; `end` is an index in the buffer."""
        begin = self._start - self._base
        line = self._kept or self._buffer[begin:end].rstrip(b", \t\r\n")
        length = self._base + end - self._start if self._kept else len(line)
        if length > self._limit:
            self._chunk.faults.setdefault(len(self._chunk.lines), line_too_long(length, self._limit))
            line = line[:KEPT_OF_BAD_LINE_BYTES]
        self._chunk.lines.append(line)
        self._chunk.offsets.append(self._start)
        self.held_bytes += len(line) + ROW_OVERHEAD_BYTES
        self.end = self._start + length
        self._at, self._depth, self._kept = end, 0, b""

    def settle(self) -> None:
        """No more bytes come: rows that a broken one before them seemed to hold are rows of their own."""
        while self._depth and not self._kept and (found := self._next_row.search(self._buffer, 1)):
            self._break_off_at(found.end() + self._base - self._start)
            self.feed(b"")

    @property
    def rest(self) -> str:
        """What is wrong with the end of the file: empty if nothing is."""
        if self.is_closed:
            tail, num_bytes = self._buffer[self._at + 1 :], len(self._buffer) - self._at - 1 + self._num_dropped
            is_plain = NEXT_ARRAY.fullmatch(tail) or CLOSING.match(tail)
            if is_plain and not self._num_dropped:
                return ""
            bytes_are = (
                "1 byte after the array of rows is"
                if num_bytes == 1
                else f"{num_bytes:,} bytes after the array of rows are"
            )
            return f"{bytes_are} not read; if they hold rows, give those a file of their own"
        return "its last row is not finished" if self._depth else "the array of its rows is not closed"

    def finish(self) -> None:
        """No more bytes come. What is not finished is a line, too."""
        self.settle()
        has_words = not self._depth and not self.is_closed and self._at < len(self._buffer)
        if self._is_range and has_words:
            self._emit(len(self._buffer))
        elif self._depth or (self.is_closed and self.rest) or not (self._is_range or self.is_closed):
            fault = None if self._depth else Fault("file_unreadable", self.rest)
            self._start = self._start if self._depth else self._base + self._at
            if fault:
                self._chunk.faults[len(self._chunk.lines)] = fault
            self._emit(len(self._buffer))

    def break_off(self, error: Exception) -> None:
        """End with a line that stands for all that could not be read."""
        num_rows = len(self._chunk.lines)
        self._chunk.faults[num_rows] = broken_off(error, self._chunk.first_line - 1 + num_rows, self.end, "row")
        self._start = self._start if self._depth else self._base + self._at
        self._emit(len(self._buffer))

    def take(self) -> Chunk:
        """What was gathered, perhaps nothing."""
        chunk = self._chunk
        self._chunk, self.held_bytes = Chunk(chunk.first_line + len(chunk.lines), [], [], {}), 0
        return chunk
