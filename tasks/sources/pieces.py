"""A raw file as pieces: ranges of whole lines, each with the digest of its bytes, cut the same way every night."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from data.rows.piece import Piece
from model.files import atomic_write
from schemas.files.arrays import HELD_BYTES, RowBuilder
from schemas.files.blocks import BLOCK_BYTES, COMPRESSED
from schemas.files.kinds import BYTE_ORDER_MARK, Array, what_is
from tasks.pages.text import plural

TABLES = (".parquet", ".arrow", ".feather")
LAST_LINE_BYTES = 4 << 20
"""An unfinished line that is longer is not parsed here but left to the reader, whose memory is bounded."""
RACY_NS = 2 * 10**9
FileState = tuple[int, int, int, int]
"""Size, time of modification, inode, time of change: what shows that a file is as it was."""


@dataclass(frozen=True)
class RawFile:
    """A file on this machine, and what reports call it."""

    source: str
    label: str
    path: Path
    is_ours: bool
    """Built in or downloaded: nobody else writes to it."""


@dataclass(frozen=True)
class CutFile:
    """The pieces of a file in a state."""

    state: FileState
    recorded_ns: int
    """When the state was read; nanoseconds since 1970."""
    pieces: tuple[Piece, ...]
    deferred: str = ""
    """Why something in it is left for the next night, if so."""

    def renamed(self, file: RawFile) -> CutFile:
        """The same under the source and label of `file`: one path may be in several sources."""
        pieces = (replace(piece, source=file.source, label=file.label) for piece in self.pieces)
        return replace(self, pieces=tuple(pieces))

    def is_current(self, state: FileState, known: Sequence[Piece]) -> bool:
        """Whether the file, now in `state`, still has these pieces, the `known` ones first.

        It may not be if the file had changed just before it was read: a second change within the resolution of the
        file system's clock leaves no trace. That is git's rule for racily clean entries (racy-git.txt there).
        """
        is_clean = state == self.state and state[1] < self.recorded_ns - RACY_NS
        return is_clean and self.pieces[: len(known)] == tuple(known)


CUT_FILES_BY_PATH = TypeAdapter(dict[str, CutFile])


def state_of(path: Path) -> FileState:
    """Raises OSError unless it is a file that can be read to its end."""
    if path.is_symlink() and not path.exists():
        raise OSError(f"a link to {path.readlink()}, which is not there")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("a folder, not a file" if stat.S_ISDIR(status.st_mode) else "not a regular file")
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns


@dataclass
class FileCutter:
    """Cuts files into pieces, and keeps a cache of them, so that an unchanged file is not read the next night."""

    cache: Path
    """A JSON file."""
    piece_bytes: int
    clock: Callable[[], float]
    """Seconds since 1970."""
    _cut_files: dict[str, CutFile] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        with suppress(OSError, ValidationError):  # without a cache every file is read
            self._cut_files = CUT_FILES_BY_PATH.validate_json(self.cache.read_bytes())

    def cut(self, file: RawFile, known: Sequence[Piece], is_moving: bool) -> CutFile:
        """The pieces of a file, the `known` ones of an earlier night first; if it `is_moving`, those alone.

        Raises OSError if it cannot be read.
        """
        known = [piece for piece in known if piece.end]  # others are whole files, whose digests say all, or empty
        state, now = state_of(file.path), int(self.clock() * 1e9)
        if not is_moving and (cached := self._cut_files.get(str(file.path))):
            cut_file = cached.renamed(file)
            if cut_file.is_current(state, known):
                return cut_file
        with file.path.open("rb", buffering=0) as stream:
            reader = RangeReader(file, stream, state[0], self.piece_bytes)
            cut_file = CutFile(state, now, *(reader.pieces(known) if not is_moving else (reader.unchanged(known), "")))
        if is_moving or (not file.is_ours and state_of(file.path) != state):
            kept = tuple(piece for piece in cut_file.pieces if piece in known)
            return CutFile(state, now, kept, "still being written to; what is new in it is left for the next night")
        self._cut_files[str(file.path)] = cut_file
        return cut_file

    def save(self) -> None:
        """Write the cache, without files that are gone."""
        present = {path: cut_file for path, cut_file in self._cut_files.items() if Path(path).exists()}
        with atomic_write(self.cache) as temporary:
            temporary.write_bytes(CUT_FILES_BY_PATH.dump_json(present))


@dataclass(frozen=True)
class RangeReader:
    """Measures and cuts the first `size` bytes of an open file."""

    file: RawFile
    stream: FileIO
    size: int
    piece_bytes: int

    def pieces(self, known: Sequence[Piece]) -> tuple[tuple[Piece, ...], str]:
        """Pieces of the file, the `known` ones first if they are unchanged; and why its end is deferred, if so."""
        if self.file.path.suffix in COMPRESSED + TABLES:
            return (replace(self.measured(0, self.size, 1), end=None, num_lines=0),), ""
        what = what_is(self.file.path, self.size)
        if isinstance(what, Array):
            return self.array_pieces(what, known)
        if what:
            return (replace(self.measured(0, self.size, 1), num_lines=1),), ""
        pieces = self.unchanged(known)
        start = self.next_line(pieces[-1].end or 0) if pieces else 0
        line = sum(piece.num_lines for piece in pieces) + 1
        end = self.end_of_lines(start)
        if end < self.size and what_is(self.file.path, end):  # the reader will not see what follows
            pieces, _ = replace(self, size=end).pieces(known)
            return pieces, self.unfinished(end)
        pieces += tuple(self.new_pieces(start, end, line)) if self.size else (self.measured(0, 0, 1),)
        return pieces, self.unfinished(end)

    def unfinished(self, end: int) -> str:
        """Why what follows on the last whole line is deferred; empty if nothing does."""
        if end == self.size:
            return ""
        return f"its last line ({plural(self.size - end, 'byte')}) is not finished; it is left for the next night"

    def array_pieces(self, array: Array, known: Sequence[Piece]) -> tuple[tuple[Piece, ...], str]:
        """The same of a JSON array, whose elements are its lines."""
        pieces = self.unchanged_rows(known)
        start = pieces[-1].end or 0 if pieces else array.body
        line = sum(piece.num_lines for piece in pieces) + 1
        builder = RowBuilder(array, line, start, HELD_BYTES, is_range=False)
        at, numbers, starts = self.stream.seek(start), [line], [start if pieces else 0]  # a piece's first row
        while at < self.size and (block := self.stream.read(min(BLOCK_BYTES, self.size - at))):
            builder.feed(block)
            at += len(block)
            if at == self.size:
                builder.settle()
            chunk = builder.take()
            line = chunk.first_line + len(chunk.lines)
            for number, offset in enumerate(chunk.offsets, chunk.first_line):
                if offset - starts[-1] >= self.piece_bytes:
                    starts.append(offset)
                    numbers.append(number)
        end, deferred = builder.end, builder.rest
        if deferred and (builder.is_closed or self.size - end > LAST_LINE_BYTES):  # no later night will find more
            end, line, deferred = self.size, line + 1, ""
        if line > numbers[-1]:
            new = zip(starts, [*starts[1:], end], numbers, [*numbers[1:], line], strict=True)
            pieces += tuple(
                replace(self.measured(begin, stop, first), num_lines=after - first) for begin, stop, first, after in new
            )
        return pieces, deferred and f"{deferred}; what follows byte {end:,} is left for the next night"

    def unchanged_rows(self, known: Sequence[Piece]) -> tuple[Piece, ...]:
        """The known pieces of a JSON array, or none unless all are as they were and another row may follow."""
        at = 0
        for piece in known:
            if replace(self.measured(at, piece.end or 0, piece.first_line), num_lines=piece.num_lines) != piece:
                return ()
            at = piece.end or 0
        self.stream.seek(at)
        return tuple(known) if re.match(rb"\s*[,\]]", self.stream.read(BLOCK_BYTES)) else ()

    def unchanged(self, known: Sequence[Piece]) -> tuple[Piece, ...]:
        """The known pieces, or none unless all are as they were and cover the file's beginning line by line."""
        if known and isinstance(what_is(self.file.path, self.size), Array):
            return self.unchanged_rows(known)
        at, line = 0, 1
        for piece in known:
            if at < 0 or self.measured(at, piece.end or 0, line) != piece:
                return ()
            at, line = self.next_line(piece.end or 0), line + piece.num_lines
        return tuple(known) if at >= 0 else ()

    def next_line(self, end: int) -> int:
        """Where the line after a piece begins; -1 if the piece's last line, once the file's last, has grown."""
        self.stream.seek(end - 1)
        around = self.stream.read(3)
        if end == self.size or around.startswith(b"\n"):
            return end
        after = around[1:]
        return end + 1 if after.startswith(b"\n") else end + 2 if after == b"\r\n" else -1

    def new_pieces(self, start: int, end: int, line: int) -> Iterator[Piece]:
        """Pieces of about `piece_bytes`, each to just after the next line feed."""
        while start < end:
            stop = self.line_end(start + self.piece_bytes - 1, end)
            piece = self.measured(start, stop, line)
            yield piece
            start, line = stop, line + piece.num_lines

    def measured(self, start: int, end: int, line: int) -> Piece:
        """A range with its digest and number of lines, read once and in blocks."""
        digest, feeds, block = hashlib.sha256(), 0, b"\n"
        at = self.stream.seek(start)
        while at < end and (read := self.stream.read(min(BLOCK_BYTES, end - at))):
            block = read
            digest.update(block)
            feeds += block.count(b"\n")
            at += len(block)
        num_lines = feeds + (not block.endswith(b"\n"))
        return Piece(
            source=self.file.source, label=self.file.label, start=start, end=end, first_line=line,
            num_lines=num_lines, digest=digest.hexdigest(),
        )  # fmt: skip

    def line_end(self, at: int, end: int) -> int:
        """Just after the first line feed from `at` on; `end` if there is none before."""
        self.stream.seek(at)
        while at < end and (block := self.stream.read(min(BLOCK_BYTES, end - at))):
            if after := block.find(b"\n") + 1:
                return at + after
            at += len(block)
        return end

    def end_of_lines(self, start: int) -> int:
        """Where the last finished line ends. One without a line feed is finished if it is a JSON value."""
        begin = self.size
        while begin > start:
            before = max(start, begin - BLOCK_BYTES)
            self.stream.seek(before)
            if after := self.stream.read(begin - before).rfind(b"\n") + 1:
                begin = before + after
                break
            begin = before
        self.stream.seek(begin)
        too_long = self.size - begin > LAST_LINE_BYTES
        return self.size if too_long or is_finished(self.stream.read(self.size - begin)) else begin


def is_finished(line: bytes) -> bool:
    """Whether the bytes after the last line feed are a whole JSON value, be it a good row or not."""
    try:
        text = line.removeprefix(BYTE_ORDER_MARK).decode("utf-8", errors="replace")
        json.loads(text, strict=False, parse_int=str, parse_float=str)
    except ValueError:
        return False
    except RecursionError:  # nested more deeply than any parser reads
        return True
    return True
