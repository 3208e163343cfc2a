"""Lines of a whole file at once."""

from __future__ import annotations


def raw_lines(body: bytes) -> list[tuple[int, bytes]]:
    """(offset, bytes up to the line feed) of each line; what follows the last line feed counts unless empty."""
    pieces = body.split(b"\n")
    lines, offset = [], 0
    for piece in pieces[:-1] if pieces[-1] == b"" else pieces:
        lines.append((offset, piece))
        offset += len(piece) + 1
    return lines


def content(raw: bytes, is_first: bool) -> bytes:
    """A line without the byte order mark of its file and without the carriage return of its ending."""
    if is_first and raw.startswith(b"\xef\xbb\xbf"):
        raw = raw[3:]
    return raw[:-1] if raw.endswith(b"\r") else raw
