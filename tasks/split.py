"""Rows → a train and a validation side, by hash of the content, shuffled by a function of the seed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifacts import DatasetRef, StageRecord
from tasks.errors import NightStopped
from tasks.recipe import SplitConfig
from tasks.stage import Night, Outcome, StageRun, run_stage

KINDS, SIDES = ("pretrain", "chat"), ("train", "val")


def position(row_id: str, salt: str) -> float:
    """A number in [0, 1) that depends on the content and the salt alone."""
    digest = hashlib.blake2b(f"{salt}:{row_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def split_rows(rows: pl.DataFrame, config: SplitConfig) -> dict[str, pl.DataFrame]:
    """Both sides of a table with column `row_id`, each in shuffled order.

    The same text is always on the same side, whatever else the table holds. Shuffling sorts by a keyed hash: it is
    a function of seed and content, so order and number of the input files do not matter.
    """
    ids = rows["row_id"].to_list()
    side = pl.Series("side", [position(i, config.salt) < config.val_share for i in ids], dtype=pl.Boolean)
    order = pl.Series("order", [position(i, f"shuffle-{config.shuffle_seed}") for i in ids], dtype=pl.Float64)
    keyed = rows.with_columns(side, order).sort("order", "row_id")
    return {
        "val": keyed.filter(pl.col("side")).drop("side", "order"),
        "train": keyed.filter(~pl.col("side")).drop("side", "order"),
    }


def table_path(folder: Path, kind: str, side: str) -> Path:
    return folder / f"{kind}.{side}.parquet"


def read_rows(ref: DatasetRef, kind: str, side: str) -> pl.DataFrame:
    """Rows of one kind on one side."""
    return pl.read_parquet(table_path(ref.path, kind, side))


@task(name="split", cache_policy=NO_CACHE, persist_result=False)
def split(night: Night, rows: DatasetRef) -> StageRecord:
    """Split validated rows into train and validation."""
    config = night.recipe.split

    def work(run: StageRun) -> Outcome:
        counts: dict[str, int] = {}
        for kind in KINDS:
            sides = split_rows(pl.read_parquet(rows.path / f"{kind}.parquet"), config)
            for side, table in sides.items():
                counts[f"{kind}_{side}"] = len(table)
                table.write_parquet(table_path(run.folder, kind, side))
                if not len(table):
                    raise NightStopped(
                        f"no {kind} row fell on the {side} side: {sum(map(len, sides.values()))} rows at "
                        f"split.val_share {config.val_share}; give more rows or another share"
                    )
        return Outcome(
            counts=counts,
            headline=f"{counts['pretrain_train'] + counts['chat_train']:,} rows train, "
            f"{counts['pretrain_val'] + counts['chat_val']:,} validation",
        )

    return run_stage(night, "split", inputs={"rows": rows}, config=config, code=("tasks.split",), work=work)
