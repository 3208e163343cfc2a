"""The folder of `deduplicate`: the ledger of all rows, with the validated parts linked beside it."""

from __future__ import annotations

from pathlib import Path

from data.duplicates.ledger import Ledger
from data.rows.folding import Parts
from data.rows.parts import PartRows
from tasks.home.contents.validated import PARTS, ScannedPiece


def part_rows(piece: ScannedPiece, parts: Parts, base: int) -> PartRows:
    """The valid rows of a piece, which lie in one of the parts; `base` is the number of the first of them."""
    return PartRows(parts.of(piece.number), base, piece.scanned.valid, piece.kind, piece.source)


def open_ledger(folder: Path) -> Ledger:
    """The ledger of a finished deduplication."""
    return Ledger.read(folder, folder / PARTS)
