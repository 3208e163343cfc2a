"""Lines of a whole file at once, and pieces of a file by its bytes."""

from __future__ import annotations

import json
from collections import Counter

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
    if is_first and raw.startswith(BYTE_ORDER_MARK):
        raw = raw[3:]
    return raw[:-1] if raw.endswith(b"\r") else raw


def repeats_a_key(line: bytes) -> bool:
    """Whether the JSON object of a line has a key twice; keys of inner objects do not count."""
    inner: list[list[str]] = []

    def keys_of(pairs: list[tuple[str, object]]) -> object:
        inner.append([key for key, _ in pairs])
        return {}

    json.loads(line, object_pairs_hook=keys_of)
    return max(Counter(inner[-1]).values(), default=0) > 1


def cut(body: bytes, piece_bytes: int) -> list[bytes]:
    """Pieces of whole lines, each closed by the line that reaches `piece_bytes`."""
    pieces = [b""]
    for line in body.split(b"\n")[:-1]:
        if len(pieces[-1]) >= piece_bytes:
            pieces.append(b"")
        pieces[-1] += line + b"\n"
    return pieces
