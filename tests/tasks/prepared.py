"""The data stages without Prefect and tracking: raw text to packed rows in one folder."""

from __future__ import annotations

from pathlib import Path

from data.duplicates.decide import NearDuplicateRules, add_generation
from data.duplicates.ledger import Ledger
from data.rows.folding import Parts
from data.sides.deal import add_sides
from tasks.home.contents.deduplicated import part_rows
from tasks.home.contents.validated import PARTS
from tasks.home.records import StageRecord, file_digests
from tasks.recipes.recipe import Recipe, side_rules
from tasks.sources.resolve import resolve
from tasks.stages.tokens import pack_sides
from tasks.stages.validate import rules_of, scan_key, scan_pieces
from tests.tasks.rows import stage_record

Prepared = tuple[Recipe, StageRecord]


def prepared_rows(recipe: Recipe, folder: Path) -> Path:
    """Both sides of a recipe's text."""
    rules, sides = rules_of(recipe), side_rules(recipe)
    raw = resolve(recipe.sources, folder)
    parts, number = [], 0
    for piece in scan_pieces([(piece, scan_key(piece, rules)) for piece in raw.pieces], rules, folder, 0):
        parts.append(part_rows(piece, Parts.read(folder / PARTS), number))
        number += piece.scanned.valid
    near = NearDuplicateRules(threshold=recipe.deduplicate.near_threshold, drop=recipe.deduplicate.near == "drop")
    ledger = add_generation(Ledger((), ()), parts, folder, near, sides.is_val)
    add_sides(ledger, 0, parts, sides, folder)
    return folder


def prepared_tokens(recipe: Recipe, folder: Path) -> StageRecord:
    """Packed rows of a recipe's text."""
    packed = folder / "packed"
    packed.mkdir()
    pack_sides(prepared_rows(recipe, folder), recipe.data, recipe.model.vocab_size, packed)
    return stage_record(packed, stage="tokens", files=file_digests(packed))
