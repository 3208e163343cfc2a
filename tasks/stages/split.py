"""Kept rows → a train side in shuffled order, and validation slices that never change."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from data.rows.parts import KINDS
from data.sides.deal import add_sides
from data.sides.read import SLICES, read_slices
from tasks.errors import NightStopped
from tasks.home.contents.deduplicated import open_ledger
from tasks.home.contents.sides import SIDES
from tasks.home.records import DatasetRef, StageRecord, take_over
from tasks.recipes.recipe import side_rules
from tasks.stage import Night, Outcome, StageRun, grow_stage


@task(name="split", cache_policy=NO_CACHE, persist_result=False)
def split(night: Night, rows: DatasetRef, grown_from: str) -> StageRecord:
    """Split kept rows into train and validation, and shuffle."""
    rules = side_rules(night.recipe)

    def work(run: StageRun, base: StageRecord | None) -> Outcome:
        linked = take_over(base, run.folder, lambda name: name if name.endswith(".arrow") else None)
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
            taken_over=linked,
        )

    return grow_stage(
        night, "split", rows=rows, grown_from=grown_from, config=rules,
        code=("tasks.stages.split", "data.sides.deal", "data.rows.keys"), work=work,
    )  # fmt: skip
