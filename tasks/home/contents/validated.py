"""The folder of `validate`: pieces of raw files, the part that each became, and a report of what was quarantined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data.rows.parts import Scanned

PIECES, REPORT, PARTS = "pieces.json", "report.json", "parts"


@dataclass(frozen=True)
class KnownPiece:
    """A range of a file's bytes as it was seen."""

    source: str
    label: str
    start: int
    end: int | None
    """None: the whole of a compressed file or table."""
    first_line: int
    """From 1."""
    digest: str
    num_lines: int


@dataclass(frozen=True, kw_only=True)
class ScannedPiece:
    """A piece, the part it became, and what it held."""

    number: int
    """Of the part."""
    source: str
    kind: str
    label: str
    start: int
    end: int | None
    first_line: int
    digest: str
    scan_key: str
    """Digest of the piece and of all that decides what becomes of its lines."""
    scanned: Scanned

    @property
    def known(self) -> KnownPiece:
        return KnownPiece(
            source=self.source, label=self.label, start=self.start, end=self.end, first_line=self.first_line,
            digest=self.digest, num_lines=self.scanned.read,
        )  # fmt: skip


def read_pieces(folder: Path) -> list[ScannedPiece]:
    """Pieces of a finished validation, in order of their parts."""
    content = json.loads((folder / PIECES).read_text(encoding="utf-8"))
    return [ScannedPiece(**{**piece, "scanned": Scanned(**piece["scanned"])}) for piece in content]


def write_pieces(folder: Path, pieces: Sequence[ScannedPiece]) -> None:
    (folder / PIECES).write_text(json.dumps([asdict(piece) for piece in pieces], indent=1), encoding="utf-8")
