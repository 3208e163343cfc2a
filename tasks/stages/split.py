"""Kept rows → a train side in shuffled order, and validation slices that grow to their budget."""

from __future__ import annotations

import numpy as np

from data.duplicates.ledger import KEPT, Ledger
from data.rows.parts import KINDS
from data.sides.deal import add_sides
from data.sides.folding import fold_sides
from data.sides.rules import SideRules
from data.sides.slices import SLICES, read_slices, validation_version
from tasks.errors import NightStopped
from tasks.home.contents.deduplicated import open_ledger
from tasks.home.contents.sides import SIDES
from tasks.home.links import link_files
from tasks.home.records import StageRecord
from tasks.pages.text import plural
from tasks.recipes.recipe import side_rules
from tasks.stage import Outcome, StageRun, stage
from tasks.tracking.tracker import VALIDATION


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
        fold_sides(run.folder, generation.number)
    for kind in KINDS:
        for side in SIDES:
            if not counts[f"{kind}_{side}"]:
                raise NightStopped(one_sided(ledger, rules, kind, side))
    version = validation_version(read_slices(run.folder))
    run.tracker.tags({VALIDATION: str(version)})
    unused = f", {counts['held_out_unused']:,} held out unused" if counts["held_out_unused"] else ""
    return Outcome(
        counts=counts,
        headline=f"{plural(counts['pretrain_train'] + counts['chat_train'], 'row')} train, {version.documents:,} "
        f"validation in {plural(version.slices, 'slice')} {version}{unused}",
        linked=linked,
    )


def one_sided(ledger: Ledger, rules: SideRules, kind: str, side: str) -> str:
    """Why no row of a kind fell on a side, and the share at which some do, if there is one."""
    parts = [ledger.clusters_of(p)[ledger.fates_of(p) == KEPT] for p in ledger.parts if p.kind == kind]
    clusters, sizes = np.unique(np.concatenate(parts), return_counts=True) if parts else (np.zeros(0), np.zeros(0))
    found = (
        f"no {kind} row fell on the {side} side: {plural(sizes.sum(), 'row')} in {plural(len(sizes), 'cluster')} of "
        f"near duplicates, the largest of {plural(max(sizes, default=0), 'row')}, at split.val_share {rules.val_share}"
    )
    if len(sizes) < 2:
        return f"{found}. A cluster is never divided: give more rows, or set deduplicate.near_threshold nearer to 1"
    above = np.sort(rules.held_out_above(clusters))
    low, high = above[:2].tolist() if side == "val" else above[-2:].tolist()
    rounded = (round((low + high) / 2, digits) for digits in range(2, 20))
    share = next((share for share in rounded if low < share < high), (low + high) / 2)
    return f"{found}. Give more rows, or set split.val_share to {share}, which divides these"
