"""Valid rows → which of them repeat others; read = kept + duplicates + quarantined, file by file."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
from prefect.artifacts import create_table_artifact

from data.duplicates.decide import NearDuplicateRules, add_generation
from data.duplicates.ledger import EXACT, FATES, KEPT, Ledger
from data.duplicates.volumes import fold_volumes
from data.rows.folding import Parts
from tasks.errors import NightStopped
from tasks.home.contents.deduplicated import open_ledger, part_rows
from tasks.home.contents.validated import PARTS, ScannedPiece, read_pieces
from tasks.home.links import link_files
from tasks.home.records import StageRecord
from tasks.pages.text import artifact_key, plural
from tasks.recipes.recipe import Recipe, side_rules
from tasks.stage import Outcome, StageRun, stage

FILES = "files.json"
LINE_FATES = ("read", "kept", "exact_duplicate", "near_duplicate", "quarantined", "blank")


def fates_by_file(ledger: Ledger, pieces: list[ScannedPiece]) -> dict[str, Counter[str]]:
    """Fates of the lines of each file, which add up to the lines read, or it is a defect."""
    by_file: dict[str, Counter[str]] = {}
    for part, piece in zip(ledger.parts, pieces, strict=True):
        fates = np.bincount(ledger.fates_of(part), minlength=len(FATES)).tolist()
        counts = by_file.setdefault(piece.label, Counter())
        counts.update(
            read=piece.scanned.read, kept=fates[KEPT], exact_duplicate=fates[EXACT],
            near_duplicate=sum(fates[EXACT + 1 :]), quarantined=piece.scanned.quarantined,
            blank=piece.scanned.blank,
        )  # fmt: skip
    for label, c in by_file.items():
        if c["read"] != sum(c[fate] for fate in LINE_FATES[1:]):
            raise AssertionError(f"{label}: {dict(c)} does not add up")
    return by_file


def deciding(recipe: Recipe) -> dict[str, object]:
    """The settings that decide which rows stay, and on which side their clusters fall."""
    rules = side_rules(recipe)
    return {"deduplicate": recipe.deduplicate, "salt": rules.salt, "val_share": rules.val_share}


@stage(config=deciding, grows=True)
def deduplicate(run: StageRun, rows: StageRecord) -> Outcome:
    """Find exact and near duplicates among the validated rows, tonight's and all earlier ones."""
    config, pieces = run.recipe.deduplicate, read_pieces(rows.path)
    linked = link_files(run.base, run.folder, lambda name: name if name.startswith("g") else None)
    linked |= link_files(rows, run.folder, lambda name: name if name.startswith(f"{PARTS}/") else None)
    ledger = Ledger((), ())
    if run.base:
        (run.folder / "rows.json").write_bytes((run.base.path / "rows.json").read_bytes())
        ledger = open_ledger(run.folder)
    parts, fresh, number = Parts.read(run.folder / PARTS), [], ledger.next_row
    for piece in pieces[len(ledger.parts) :]:
        fresh.append(part_rows(piece, parts, number))
        number += piece.scanned.valid
    rules = NearDuplicateRules(threshold=config.near_threshold, drop=config.near == "drop")
    ledger = add_generation(ledger, fresh, run.folder, rules, side_rules(run.recipe).is_val)
    if number > ledger.volumes[-1].base:
        ledger = fold_volumes(ledger)
    by_file = fates_by_file(ledger, pieces)
    (run.folder / FILES).write_text(json.dumps(by_file, indent=1, ensure_ascii=False), encoding="utf-8")
    run.tracker.artifact(run.folder / FILES, "duplicates")
    show_in_prefect(run.recipe.name, by_file)
    total: Counter[str] = sum(by_file.values(), Counter())
    straddling = sum(int((ledger.fates_of(p) > EXACT + 1).sum()) for p in ledger.parts)
    if not total["kept"]:
        raise NightStopped(f"none of {plural(total['read'], 'line')} was kept: {dict(total)}")
    return Outcome(
        counts={
            **{fate: total[fate] for fate in LINE_FATES},
            "straddling": straddling,
            "generations": len(ledger.generations),
        },
        headline=f"{plural(total['read'], 'line')} = {total['kept']:,} kept + {total['exact_duplicate']:,} exact + "
        f"{plural(total['near_duplicate'], 'near duplicate')} + {total['quarantined']:,} quarantined"
        + (f" + {total['blank']:,} blank" if total["blank"] else ""),
        figures={
            "data/duplicate_share": 1 - total["kept"] / max(1, total["read"] - total["quarantined"] - total["blank"])
        },
        linked=linked,
    )


def show_in_prefect(recipe: str, by_file: dict[str, Counter[str]]) -> None:
    table = [{"file": label, **counts} for label, counts in by_file.items()]
    create_table_artifact(table, key=artifact_key(recipe, "lines-by-file"), description="Fates of the raw lines")
