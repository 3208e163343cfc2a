"""The unit of work on raw files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A range of whole lines of a raw file: what one worker reads, and what later nights need not read again."""

    source: str
    """Name of the recipe's source."""
    label: str
    """What reports call the file: source and name, not where this machine keeps it."""
    start: int
    """First byte."""
    end: int | None
    """One past the last byte. None: the whole of a compressed file, or of a table that is converted to jsonl."""
    first_line: int
    """From 1."""
    num_lines: int
    """0 where `end` is None: the lines are counted when the file is scanned."""
    digest: str
    """SHA-256 of the raw bytes from `start` to `end`; of the whole raw file, before conversion, if that is None."""
