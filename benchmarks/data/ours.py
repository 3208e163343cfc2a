"""Our side of `benchmarks/data/stages.py`: the work of the data stages, without servers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

from benchmarks.data.sketching import sketch_part
from data.duplicates.decide import NearDuplicateRules, add_generation
from data.duplicates.ledger import KEPT, Ledger
from data.rows.folding import Parts
from data.rows.parts import Part
from data.sides.deal import add_sides
from data.workers import run_jobs
from tasks.home.contents.deduplicated import part_rows
from tasks.home.contents.validated import PARTS, read_pieces, write_pieces
from tasks.home.journal import Journal
from tasks.home.records import StageRecord
from tasks.night.opening import known_pieces
from tasks.recipes.recipe import Recipe, recipe_from, side_rules
from tasks.sources.resolve import resolve
from tasks.stage import Night
from tasks.stages import deduplicate as deduplicate_stage
from tasks.stages.deduplicate import deduplicate
from tasks.stages.split import split
from tasks.stages.tokens import pack_sides, tokens
from tasks.stages.validate import rules_of, scan_key, scan_pieces, validate
from tasks.tracking.tracker import DictTracker


def recipe_of(corpus: Path, near_threshold: float | None) -> Recipe:
    """Both kinds of a corpus folder, with its tokenizer."""
    sources = [
        {"name": f"{kind}-rows", "kind": kind, "location": f"{corpus}/{kind}-*.jsonl"} for kind in ("pretrain", "chat")
    ]
    return recipe_from(
        {
            "name": "bench",
            "sources": sources,
            "validate": {"settle_seconds": 0.0},
            "deduplicate": {"near_threshold": near_threshold},
            "data": {"tokenizer": str(corpus), "sequence_length_tokens": 512},
        }
    )


def ledger_of(recipe: Recipe, folder: Path, near_threshold: float | None, into: Path) -> Ledger:
    parts, number = [], 0
    for piece in read_pieces(folder):
        parts.append(part_rows(piece, Parts.read(folder / PARTS), number))
        number += piece.scanned.valid
    into.mkdir(parents=True)
    rules = side_rules(recipe)
    return add_generation(
        Ledger((), ()), parts, into, NearDuplicateRules(threshold=near_threshold, drop=True), rules.is_val
    )


def validate_and_deduplicate(corpus: Path, work: Path) -> Mapping[str, int]:
    """Digests, row rules, domains, names, exact duplicates: raw files to `validate/` and `exact/`."""
    recipe, folder = recipe_of(corpus, None), work / "validate"
    folder.mkdir(parents=True)
    raw, rules = resolve(recipe.sources, work), rules_of(recipe)
    write_pieces(folder, scan_pieces([(piece, scan_key(piece, rules)) for piece in raw.pieces], rules, folder, 0))
    ledger = ledger_of(recipe, folder, None, work / "exact")
    return {"kept": sum(int((ledger.fates_of(part) == KEPT).sum()) for part in ledger.parts)}


def near_duplicates(corpus: Path, work: Path) -> Mapping[str, int]:
    """Sketches, bands, clusters: `validate/` to `distinct/`."""
    recipe, folder = recipe_of(corpus, 0.8), work / "validate"
    pieces = read_pieces(folder)
    jobs = [Part(folder / PARTS, piece.number) for piece in pieces]
    list(run_jobs(sketch_part, jobs, sum(piece.scanned.num_bytes for piece in pieces)))
    ledger = ledger_of(recipe, folder, 0.8, work / "distinct")
    return {"kept": sum(int((ledger.fates_of(part) == KEPT).sum()) for part in ledger.parts)}


def shuffle(corpus: Path, work: Path) -> Mapping[str, int]:
    """Sides, slices, buckets: `distinct/` to `sides/`."""
    distinct, into = work / "distinct", work / "sides"
    into.mkdir()
    ledger = Ledger.read(distinct, work / "validate" / PARTS)
    return add_sides(ledger, 0, ledger.parts, side_rules(recipe_of(corpus, 0.8)), into)


def encode_and_pack(corpus: Path, work: Path) -> Mapping[str, int]:
    """Sorted buckets, ids, packed rows, contamination: `sides/` to `tokens/`."""
    into = work / "tokens"
    into.mkdir()
    recipe = recipe_of(corpus, 0.8)
    _, figures, _ = pack_sides(work / "sides", recipe.data, recipe.model.vocab_size, into)
    return {name: int(count) for name, count in figures["counts"].items()}


def run_id_of(name: str) -> str:
    return uuid5(NAMESPACE_OID, name).hex


class UntrackedStore:
    """A tracking store that keeps nothing."""

    def reopen(self, run_id: str) -> bool:
        return False

    def start_run(self, name: str, tags: Mapping[str, str], parent_id: str = "") -> str:
        return run_id_of(name)

    def tracker(self, run_id: str, system_metrics: bool = False) -> DictTracker:
        return DictTracker(run_id)


class UntrackedNight(Night):
    """A night whose stages report to no tracking server."""

    @property
    def store(self) -> UntrackedStore:  # type: ignore[override]
        return UntrackedStore()


def data_stages(recipe: Recipe, work: Path) -> tuple[StageRecord, StageRecord, StageRecord, StageRecord]:
    """Run validate, deduplicate, split and tokens as a night does, without tracking; returns their records in order."""
    deduplicate_stage.show_in_prefect = lambda recipe, by_file: None
    journal = Journal(work)
    with journal.lease(recipe.name) as token:
        raw = resolve(recipe.sources, work, known_pieces(journal, recipe))
        tonight = UntrackedNight(recipe, "key", work, "", "run", token, raw)
        validated = validate.fn(tonight)
        distinct = deduplicate.fn(tonight, validated)
        sides = split.fn(tonight, distinct)
        packed = tokens.fn(tonight, sides)
    return validated, distinct, sides, packed


def night(corpus: Path, work: Path) -> Mapping[str, int]:
    """The data stages as a night runs them: digests, records, flushes to disk and publication included."""
    validated, distinct, _, packed = data_stages(recipe_of(corpus, 0.8), work)
    shutil.rmtree(work / "logs", ignore_errors=True)
    return {
        "read": validated.counts["read"],
        "kept": distinct.counts["kept"],
        "rows": packed.counts["pretrain_train_rows"],
    }
