"""What became of the lines of a validation, file by file; the rules that bad ones broke, and what may cure them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from heapq import nlargest
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from data.rows.folding import Parts, bad_lines_of
from schemas.guesses import ARRAY, CURES, TURN, other_shape
from schemas.jsonl import FILE_RULES
from schemas.report import EXAMPLES_PER_RULE
from tasks.home.contents.validated import ScannedPiece
from tasks.recipes.stage_configs import SourceConfig

BAD_LINES_LOOKED_AT = 1_000
"""Of a piece, to guess what they are."""
PIECES_LOOKED_AT = 100
FILES_NAMED = 3
"""In a message."""


def lines_by_file(pieces: Sequence[ScannedPiece]) -> dict[str, Counter[str]]:
    """Lines of each file by what became of them, and conversations in which turns were merged."""
    counts: dict[str, Counter[str]] = {}
    for piece in pieces:
        names = ("read", "valid", "quarantined", "blank", "merged")
        lines = {name: getattr(piece.scanned, name) for name in names}
        counts.setdefault(piece.label, Counter()).update(lines)
    return counts


def rules_broken(pieces: Sequence[ScannedPiece]) -> dict[str, dict[str, Any]]:
    """Quarantined lines by rule, most frequent first, with a few examples."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for piece in pieces:
        for rule, found in piece.scanned.rules.items():
            counts[rule] += found["count"]
            shown = examples.setdefault(rule, [])
            shown += found["examples"][: EXAMPLES_PER_RULE - len(shown)]
    return {rule: {"count": count, "examples": examples[rule]} for rule, count in counts.most_common()}


def held(lines: Counter[str]) -> int:
    """Lines that hold something."""
    return lines["read"] - lines["blank"]


def left_out(pieces: Sequence[ScannedPiece]) -> list[tuple[str, str]]:
    """(file, reason) of files that are something else, or break off: one bad line stands for all of such a file."""
    return [
        (piece.label, example.removeprefix(piece.label).partition(" ")[2])
        for piece in pieces
        for rule in FILE_RULES
        for example in piece.scanned.rules.get(rule, {"examples": []})["examples"]
    ]


def raw_lines(piece: ScannedPiece, folder: Path, rule: str | None = None) -> Iterator[str]:
    """The beginnings of the quarantined lines of a piece, of those that break `rule` if it is given.

    `folder`: of the parts.
    """
    lines = bad_lines_of(Parts.read(folder).of(piece.number))
    return (bad["raw"] for bad in map(orjson.loads, lines) if rule in (None, bad["rule"]))


def other_shapes(
    pieces: Sequence[ScannedPiece], sources: Sequence[SourceConfig], folder: Path
) -> dict[str, Counter[str]]:
    """Bad lines of each file that look like rows of another format than their source's, by `guesses.other_shape`.

    `pieces`: of tonight; `folder`: of the parts. Looked at are the first BAD_LINES_LOOKED_AT of the PIECES_LOOKED_AT
    pieces that have most of them.
    """
    of_name = {source.name: source for source in sources}
    mine = [piece for piece in pieces if piece.source in of_name and piece.scanned.quarantined]
    shapes: dict[str, Counter[str]] = {}
    for piece in nlargest(PIECES_LOOKED_AT, mine, key=lambda piece: piece.scanned.quarantined):
        source = of_name[piece.source]
        bad = islice(raw_lines(piece, folder), BAD_LINES_LOOKED_AT)
        found = Counter(shape for raw in bad if (shape := other_shape(raw, source.kind, source.format)))
        if found:
            shapes.setdefault(piece.label, Counter()).update(found)
    return shapes


def cures_of_formats(pieces: Sequence[ScannedPiece], sources: Sequence[SourceConfig], folder: Path) -> list[str]:
    """A sentence for each of the FILES_NAMED files with most bad lines that look like another format; arguments as in
    `other_shapes`."""
    by_file = lines_by_file(pieces)
    shapes = other_shapes(pieces, sources, folder)
    return [
        f"{label}: {cure_of(shapes[label], by_file[label]['valid'])}"
        for label in nlargest(FILES_NAMED, shapes, key=lambda label: shapes[label].total())
    ]


def cure_of(shapes: Counter[str], num_valid: int) -> str:
    """What to do with a file of `num_valid` good rows and bad ones that are counted by their shapes."""
    (shape, _), *others = shapes.most_common()
    if others or (num_valid and shape not in (ARRAY, TURN)):
        names = ", ".join(f"{number:,} like {shape}" for shape, number in shapes.most_common())
        return f"bad rows look like others: {names}. Split it by format, and make each part a source with its `format`."
    if shape in (ARRAY, TURN):
        return CURES[shape]
    setting = "kind: pretrain" if shape == "text" else f"format: {shape}"
    return f"its rows look like {shape}. Make it a source of its own with `{setting}`."
