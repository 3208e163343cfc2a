"""Kept rows → a train side in shuffled order, and validation slices that never change."""

from __future__ import annotations

from data.rows.parts import KINDS
from data.sides.deal import add_sides
from data.sides.read import SLICES, read_slices
from tasks.errors import NightStopped
from tasks.home.contents.deduplicated import open_ledger
from tasks.home.contents.sides import SIDES
from tasks.home.links import link_files
from tasks.home.records import StageRecord
from tasks.recipes.recipe import side_rules
from tasks.stage import Outcome, StageRun, stage


@stage(config=side_rules, grows=True)
def split(run: StageRun, rows: StageRecord) -> Outcome:
    """Split kept rows into train and validation, and shuffle."""
    rules, base = side_rules(run.recipe), run.base
    linked = link_files(base, run.folder, lambda name: name if name.endswith(".arrow") else None)
    if base:
        (run.folder / SLICES).write_bytes((base.path / SLICES).read_bytes())
    ledger = open_ledger(rows.path)
    first = ledger.generations[-1] if base else ledger.generations[0]
    counts = dict(base.counts) if base else {}
    for generation in ledger.generations[first.number :]:
        fresh = [p for p in ledger.parts if generation.base <= p.base < generation.base + generation.count]
        for name, count in add_sides(ledger, generation.number, fresh, rules, run.folder).items():
            counts[name] = counts.get(name, 0) + count
    for kind in KINDS:
        for side in SIDES:
            if not counts[f"{kind}_{side}"]:
                kept = counts[f"{kind}_train"] + counts[f"{kind}_val"]
                raise NightStopped(
                    f"no {kind} row fell on the {side} side: {kept} rows at split.val_share {rules.val_share}; "
                    "give more rows or another share"
                )
    return Outcome(
        counts=counts,
        headline=f"{counts['pretrain_train'] + counts['chat_train']:,} rows train, "
        f"{counts['pretrain_val'] + counts['chat_val']:,} validation in {len(read_slices(run.folder))} slices",
        linked=linked,
    )
