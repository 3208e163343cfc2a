"""Rows → sides and order, out of core: which rows are never trained on, and the train side dealt into buckets.

The side of a row hangs on the name of its cluster and the salt, its place on the seed and its own name: neither on
other rows, nor on the number of workers, nor on how the text was cut into pieces. Buckets are ranges of the order, so
sorting each gives an exact shuffle of all.
"""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from data.keys import mixed, names_of
from data.ledger import KEPT, Ledger
from data.names import PartRows
from data.parts import CONTENT, KINDS, arrow_writer, read_batches, to_arrow
from data.workers import run_jobs
from schemas.domain import DOMAINS

BUCKET_BYTES = 8 << 20
MAX_BUCKETS = 1024
DEALERS = 4
"""Parts are dealt into as many sets of bucket files, however many workers there are."""
ORDER = pl.Schema({"order": pl.UInt64, "row": pl.UInt32, "source": pl.String, "domain": pl.UInt8})
"""Columns beside the content of a train row."""
VAL = pl.Schema({"row_id": pl.String, "row": pl.UInt32, "source": pl.String, "domain": pl.String})
"""Columns beside the content of a validation row."""
SLICES = "slices.json"


@dataclass(frozen=True, kw_only=True)
class SideRules:
    """What decides sides and order."""

    val_share: float
    salt: str
    shuffle_seed: int
    val_bytes_per_slice: int
    weights: dict[str, float]
    """Of each source, how often its train rows are seen."""

    def is_val(self, clusters: np.ndarray) -> np.ndarray:
        """Whether each cluster is held out; clusters are (N,) of ID_DTYPE."""
        return mixed(clusters["hi"], self.salt) < np.uint64(int(self.val_share * 2**64))

    def order(self, ids: np.ndarray, copy: int = 0) -> np.ndarray:
        """Place of each row in the shuffled order, (N,) uint64."""
        return mixed(ids["lo"], f"shuffle-{self.shuffle_seed}-{copy}")

    def copies(self, source: str, ids: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the copy, which rows have it): a weight of 1.5 is every row once and half of them twice."""
        whole, rest = divmod(self.weights[source], 1.0)
        for copy in range(int(whole)):
            yield copy, np.ones(len(ids), dtype=bool)
        if rest:
            yield int(whole), mixed(ids["lo"], f"weight-{self.salt}") < np.uint64(int(rest * 2**64))


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


def train_path(folder: Path, kind: str, generation: int, bucket: int, dealer: int) -> Path:
    return folder / f"{kind}.train.g{generation:04d}.b{bucket:04d}.d{dealer}.arrow"


def val_path(folder: Path, kind: str, generation: int) -> Path:
    return folder / f"{kind}.val.g{generation:04d}.arrow"


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
        train = (job.ledger.fates_of(p) == KEPT) & ~job.rules.is_val(job.ledger.clusters_of(p))
        ids, domains = p.part.ids, p.part.facts["domain"]
        shift = np.uint64(64 - (job.buckets[p.kind] - 1).bit_length())
        start = 0
        for content in p.part.rows():
            here = slice(start, start + len(content))
            start += len(content)
            rows = np.arange(here.start, here.stop) + p.base
            wanted = np.isin(rows, job.chosen, assume_unique=True)
            if wanted.any():
                held[p.kind].append(val_rows(content, rows, wanted, ids[here], domains[here], p))
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
                        path = train_path(job.folder, p.kind, job.generation, key[1], job.dealer)
                        writers[key] = arrow_writer(path, table.schema)
                    writers[key].write_table(table)
    for writer in writers.values():
        writer.close()
    return counts, {kind: pa.concat_tables(tables) for kind, tables in held.items() if tables}


def val_rows(
    content: pl.DataFrame, rows: np.ndarray, wanted: np.ndarray, ids: np.ndarray, domains: np.ndarray, part: PartRows
) -> pa.Table:
    """The chosen rows of a chunk as the evaluation reads them; a copy, as polars' rows keep the whole chunk alive."""
    frame = pl.DataFrame(
        {
            "row_id": names_of(ids[wanted]),
            "row": rows[wanted].astype(np.uint32),
            "source": [part.source] * int(wanted.sum()),
            "domain": [DOMAINS[code] for code in domains[wanted]],
        },
        schema=VAL,
    )
    return to_arrow(frame.with_columns(content.filter(pl.Series(wanted))))


def choose_slices(
    ledger: Ledger, parts: Sequence[PartRows], rules: SideRules, frozen: dict[str, object]
) -> tuple[np.ndarray, int]:
    """Rows of the validation slices that this generation founds, and how many more rows are held out unused.

    A slice is a kind and a domain. It takes held-out rows in their shuffled order up to a budget of bytes; once it
    exists it never changes. Bytes, not tokens: the same text must be asked of models with any vocabulary.
    """
    chosen: list[np.ndarray] = []
    unused = 0
    for kind in KINDS:
        rows, orders, sizes, domains = [], [], [], []
        for p in (p for p in parts if p.kind == kind):
            held = np.flatnonzero((ledger.fates_of(p) == KEPT) & rules.is_val(ledger.clusters_of(p)))
            facts = p.part.facts[held]
            rows.append(held + p.base)
            orders.append(rules.order(p.part.ids[held]))
            sizes.append(facts["num_bytes"])
            domains.append(facts["domain"])
        if not rows:
            continue
        row, order, size, domain = (np.concatenate(c) for c in (rows, orders, sizes, domains))
        for code, name in enumerate(DOMAINS):
            mine = np.flatnonzero(domain == code)
            mine = mine[np.argsort(order[mine], kind="stable")]
            fits = np.cumsum(size[mine], dtype=np.int64) <= rules.val_bytes_per_slice
            fits[:1] = True
            taken = mine[fits] if f"{kind}/{name}" not in frozen else mine[:0]
            chosen.append(row[taken])
            unused += len(mine) - len(taken)
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64), unused


def add_sides(
    ledger: Ledger,
    generation: int,
    parts: Sequence[PartRows],
    rules: SideRules,
    folder: Path,
    workers: int | None = None,
) -> dict[str, int]:
    """Write the sides of one generation, given by its parts, into `folder`; returns counts. Earlier slices stay."""
    slices = read_slices(folder)
    chosen, unused = choose_slices(ledger, parts, rules, slices)
    sizes = {kind: sum(int(p.part.facts["num_bytes"].sum()) for p in parts if p.kind == kind) for kind in KINDS}
    buckets = {kind: num_buckets(size) for kind, size in sizes.items()}
    jobs = [
        DealJob(ledger, generation, tuple(parts[dealer::DEALERS]), rules, folder, dealer, buckets, chosen)
        for dealer in range(min(DEALERS, len(parts)))
    ]
    counts = {f"{kind}_{side}": 0 for kind in KINDS for side in ("train", "val")} | {"held_out_unused": unused}
    held: dict[str, list[pa.Table]] = {kind: [] for kind in KINDS}
    for dealt, val in run_jobs(deal, jobs, sum(sizes.values()), workers):
        for name, count in dealt.items():
            counts[name] += count
        for kind, rows in val.items():
            held[kind].append(rows)
    for kind, tables in held.items():
        if tables:
            table = pl.DataFrame(pl.from_arrow(pa.concat_tables(tables))).sort("row_id", "row")
            counts[f"{kind}_val"] += len(table)
            with arrow_writer(val_path(folder, kind, generation), to_arrow(table).schema) as writer:
                writer.write_table(to_arrow(table))
            slices |= describe_slices(kind, table, generation)
    (folder / SLICES).write_text(json.dumps(slices, indent=1), encoding="utf-8")
    return counts


def describe_slices(kind: str, table: pl.DataFrame, generation: int) -> dict[str, object]:
    """What is frozen: the documents of each slice, by a digest of their names, and since when."""
    return {
        f"{kind}/{domain}": {
            "documents": len(part),
            "version": hashlib.sha256("".join(sorted(part["row_id"])).encode()).hexdigest()[:12],
            "since_generation": generation,
        }
        for (domain,), part in sorted(table.group_by("domain"))
    }


def num_buckets(num_bytes: int) -> int:
    """A power of two, so that a bucket is a prefix of the order."""
    wanted = -(-num_bytes // BUCKET_BYTES)
    return min(MAX_BUCKETS, 1 << max(0, wanted - 1).bit_length())


def read_slices(folder: Path) -> dict[str, Any]:
    path = folder / SLICES
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


@dataclass(frozen=True)
class Bucket:
    """One range of the order of one generation: the unit in which the train side is read."""

    kind: str
    generation: int
    number: int
    files: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """Of its files, compressed."""
        return sum(path.stat().st_size for path in self.files)

    def read(self) -> pl.DataFrame:
        """Its rows in shuffled order: ORDER's columns and the content."""
        frames = [frame for path in self.files for frame in read_batches(path)]
        return pl.concat(frames).sort("order", "row")


def train_buckets(folder: Path, kind: str, generation: int | None = None) -> list[Bucket]:
    """Buckets of the train side in order, of one generation or of all."""
    found: dict[tuple[int, int], list[Path]] = {}
    for path in sorted(folder.glob(f"{kind}.train.g*.arrow")):
        _, _, g, b, _, _ = path.name.split(".")
        found.setdefault((int(g[1:]), int(b[1:])), []).append(path)
    return [Bucket(kind, g, b, tuple(files)) for (g, b), files in sorted(found.items()) if generation in (None, g)]


def with_content(schema: pl.Schema, kind: str) -> pl.Schema:
    return pl.Schema({**dict(schema.items()), **dict(CONTENT[kind].items())})


def read_val(folder: Path, kind: str) -> pl.DataFrame:
    """All validation rows of a kind: row_id, row, source, domain and the content."""
    frames = [frame for path in sorted(folder.glob(f"{kind}.val.g*.arrow")) for frame in read_batches(path)]
    return pl.concat(frames) if frames else pl.DataFrame(schema=with_content(VAL, kind))


def read_train(folder: Path, kind: str) -> pl.DataFrame:
    """All train rows of a kind, in order; for small data and tests."""
    frames = [bucket.read() for bucket in train_buckets(folder, kind)]
    return pl.concat(frames) if frames else pl.DataFrame(schema=with_content(ORDER, kind))
