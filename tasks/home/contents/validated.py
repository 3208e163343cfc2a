"""The folder of `validate`: pieces of raw files, the part that each became, and a report of what was quarantined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from data.rows.parts import Scanned
from data.rows.piece import Piece

PIECES, REPORT, PARTS = "pieces.json", "report.json", "parts"
MOST_FILES = 5
"""Named one by one where files that were left out are told."""


@dataclass(frozen=True, kw_only=True)
class ScannedPiece:
    """A piece, the part it became, and what it held."""

    piece: Piece
    number: int
    """Of the part."""
    kind: str
    """One of data.rows.parts.KINDS."""
    scan_key: str
    """Digest of the piece and of all that decides what becomes of its lines."""
    scanned: Scanned

    @property
    def source(self) -> str:
        return self.piece.source

    @property
    def label(self) -> str:
        return self.piece.label

    @property
    def lines(self) -> range:
        """Numbers of its lines in the raw file."""
        return range(self.piece.first_line, self.piece.first_line + self.scanned.read)


def read_pieces(folder: Path) -> list[ScannedPiece]:
    """Pieces of a finished validation, in order of their parts."""
    return [
        ScannedPiece(**entry | {"piece": Piece(**entry["piece"]), "scanned": Scanned(**entry["scanned"])})
        for entry in orjson.loads((folder / PIECES).read_bytes())
    ]


def write_pieces(folder: Path, pieces: Sequence[ScannedPiece]) -> None:
    (folder / PIECES).write_text(json.dumps([asdict(piece) for piece in pieces], indent=1), encoding="utf-8")


def files_left_out(folder: Path) -> list[str]:
    """A sentence for each file of which nothing or not all was read, up to MOST_FILES, then how many more there are."""
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    told = [f"file {label} was left out: {reason}" for label, reason in report["set_aside"]]
    more = len(told) - MOST_FILES
    return [*told[:MOST_FILES], *([f"and {more:,} more; see the data report"] if more > 0 else [])]
