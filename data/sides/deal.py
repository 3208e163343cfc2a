"""Rows → sides and order, out of core: which rows are never trained on, and the train side dealt into buckets.

The side of a row depends on the name of its cluster and the salt, its place on the seed and its own name; neither on
other rows, nor on the number of workers, nor on how the text was cut into pieces. Buckets are ranges of the order, so
sorting each gives an exact shuffle of all.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from data.duplicates.ledger import KEPT, Ledger
from data.files import arrow_writer, to_arrow
from data.rows.keys import names_of
from data.rows.parts import KINDS, PartRows
from data.sides.read import ORDER, VAL, read_val, train_path, val_path
from data.sides.rules import SideRules
from data.sides.slices import added_by, chosen_rows, grown, read_slices, write_slices
from data.workers import run_jobs
from schemas.domain import DOMAINS

BUCKET_BYTES = 8 << 20
MAX_BUCKETS = 1024
DEALERS = 4
"""Parts are dealt into as many sets of bucket files, however many workers there are."""


@dataclass(frozen=True)
class DealJob:
    """Some parts of a generation, dealt into bucket files of their own."""

    ledger: Ledger
    generation: int
    parts: tuple[PartRows, ...]
    rules: SideRules
    folder: Path
    dealer: int
    buckets: dict[str, int]
    chosen: np.ndarray
    """Numbers of the validation rows, ascending."""
    slices: np.ndarray
    """Name of the slice of each of them."""


def allow_open_files(wanted: int) -> None:
    """Raise this process's limit on open files as far as the system lets it: a dealer keeps every bucket open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(hard, wanted), hard)
        )


def deal(job: DealJob) -> tuple[dict[str, int], dict[str, pa.Table]]:
    """Write the train rows of some parts to buckets; returns counts and the validation rows that were chosen."""
    allow_open_files(2 * MAX_BUCKETS)
    counts: dict[str, int] = {f"{kind}_train": 0 for kind in KINDS}
    held: dict[str, list[pa.Table]] = {kind: [] for kind in KINDS}
    writers: dict[tuple[str, int], pa.ipc.RecordBatchFileWriter] = {}
    for p in job.parts:
        ids, domains, clusters = p.part.ids, p.part.facts["domain"], job.ledger.clusters_of(p)
        train = (job.ledger.fates_of(p) == KEPT) & ~job.rules.is_val(clusters)
        shift = np.uint64(64 - (job.buckets[p.kind] - 1).bit_length())
        start = 0
        for content in p.part.rows():
            here = slice(start, start + len(content))
            start += len(content)
            rows = np.arange(here.start, here.stop) + p.base
            wanted = np.isin(rows, job.chosen, assume_unique=True)
            if wanted.any():
                names = job.slices[np.searchsorted(job.chosen, rows[wanted])]
                held[p.kind].append(val_rows(content, rows, wanted, ids[here], domains[here], clusters[here], p, names))
            for copy, chosen in job.rules.copies(p.source, ids[here]):
                mask = train[here] & chosen
                order = job.rules.order(ids[here], copy)[mask]
                frame = pl.DataFrame(
                    {
                        "order": order,
                        "row": rows[mask].astype(np.uint32),
                        "source": p.source,
                        "domain": domains[here][mask],
                    },
                    schema=ORDER,
                ).with_columns(content.filter(pl.Series(mask)))
                counts[f"{p.kind}_train"] += len(frame)
                bucket = order >> shift if job.buckets[p.kind] > 1 else np.zeros(len(order), dtype=np.uint64)
                for (number,), dealt in frame.with_columns(bucket=bucket).partition_by(
                    "bucket", as_dict=True, include_key=False
                ).items():  # fmt: skip
                    key = p.kind, int(number)
                    table = to_arrow(dealt)
                    if key not in writers:
                        path = train_path(job.folder, p.kind, (job.generation, key[1]), job.dealer)
                        writers[key] = arrow_writer(path, table.schema)
                    writers[key].write_table(table)
    for writer in writers.values():
        writer.close()
    return counts, {kind: pa.concat_tables(tables) for kind, tables in held.items() if tables}


def val_rows(
    content: pl.DataFrame, rows: np.ndarray, wanted: np.ndarray, ids: np.ndarray, domains: np.ndarray,
    clusters: np.ndarray, part: PartRows, slices: np.ndarray,
) -> pa.Table:  # fmt: skip
    """The chosen rows of a chunk as the evaluation reads them; a copy, as polars' rows keep the whole chunk alive."""
    frame = pl.DataFrame(
        {
            "row_id": names_of(ids[wanted]),
            "row": rows[wanted].astype(np.uint32),
            "source": [part.source] * int(wanted.sum()),
            "domain": [DOMAINS[code] for code in domains[wanted]],
            "slice": slices.tolist(),
            "cluster": names_of(clusters[wanted]),
        },
        schema=VAL,
    )
    return to_arrow(frame.with_columns(content.filter(pl.Series(wanted))))


def add_sides(
    ledger: Ledger,
    generation: int,
    parts: Sequence[PartRows],
    rules: SideRules,
    folder: Path,
    workers: int | None = None,
) -> dict[str, int]:
    """Write the sides of one generation into `folder`; returns counts of rows. What is in a slice stays in it.

    `ledger` has the fates of all rows, `parts` are the generation's; `rules` decide side and order.
    `workers` processes share the parts, by default one a core.
    """
    slices = read_slices(folder)
    added, unused = added_by(ledger, parts, rules, slices)
    chosen, names = chosen_rows(added)
    sizes = {kind: sum(int(p.part.facts["num_bytes"].sum()) for p in parts if p.kind == kind) for kind in KINDS}
    buckets = {kind: num_buckets(size) for kind, size in sizes.items()}
    jobs = [
        DealJob(ledger, generation, tuple(parts[dealer::DEALERS]), rules, folder, dealer, buckets, chosen, names)
        for dealer in range(min(DEALERS, len(parts)))
    ]
    counts = {f"{kind}_{side}": 0 for kind in KINDS for side in ("train", "val")} | {"held_out_unused": unused}
    held: dict[str, list[pa.Table]] = {kind: [] for kind in KINDS}
    for dealt, val in run_jobs(deal, jobs, sum(sizes.values()), workers):
        for name, count in dealt.items():
            counts[name] += count
        for kind, rows in val.items():
            held[kind].append(rows)
    members: dict[str, list[str]] = {}
    for kind, tables in held.items():
        if tables:
            table = pl.DataFrame(pl.from_arrow(pa.concat_tables(tables))).sort("row_id", "row")
            counts[f"{kind}_val"] += len(table)
            with arrow_writer(val_path(folder, kind, generation), to_arrow(table).schema) as writer:
                writer.write_table(to_arrow(table))
            for name, row_id in read_val(folder, kind).select("slice", "row_id").iter_rows():
                members.setdefault(name, []).append(row_id)
    write_slices(folder, grown(slices, added, members, generation))
    return counts


def num_buckets(num_bytes: int) -> int:
    """A power of two, so that a bucket is a prefix of the order."""
    wanted = -(-num_bytes // BUCKET_BYTES)
    return min(MAX_BUCKETS, 1 << max(0, wanted - 1).bit_length())
