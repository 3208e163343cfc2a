"""Which n-grams of the validation side stand in the train side: written, looked for, and shares by document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from data.rows.parts import KINDS, spoken_of
from data.sides.read import Bucket, read_val
from data.tokens.contamination import Fingerprints
from data.tokens.encode import Encoder
from data.tokens.tokenise import SearchJob, Tokenised, search
from data.workers import run_jobs

FINGERPRINTS, CONTAMINATED = "validation-ngrams", "contaminated.npy"


def write_fingerprints(rows: Path, encoder: Encoder, folder: Path) -> None:
    """Write the n-grams of the validation slices, system turns left out; `rows` is the folder of the split."""
    documents = [encoder.encode(list(spoken_of(t[t.columns[-1]]))) for kind in KINDS if len(t := read_val(rows, kind))]
    ids = np.concatenate([ids for ids, _ in documents])
    lengths = np.concatenate([np.diff(offsets) for _, offsets in documents])
    fingerprints = Fingerprints.of(ids, np.concatenate([[0], np.cumsum(lengths)]))
    (folder / FINGERPRINTS).mkdir()
    for name in ("hashes", "owner", "place"):
        np.save(folder / FINGERPRINTS / f"{name}.npy", getattr(fingerprints, name))


def mark_contaminated(folder: Path, base: Path | None, earlier: Sequence[Bucket], shards: Sequence[Tokenised]) -> None:
    """Which validation n-grams the train side holds.

    `folder` is that of tonight's packed rows, `base` of those that they grew from, `shards` are figures of tonight's
    buckets. What was found on earlier nights stays found; the n-grams of slices that are new tonight are looked for in
    the `earlier` buckets, too.
    """
    hashes = np.load(folder / FINGERPRINTS / "hashes.npy")
    found = np.packbits(np.zeros(len(hashes), dtype=bool))
    found_in_buckets = [shard.contaminated for shard in shards]
    if base:
        before = np.load(base / FINGERPRINTS / "hashes.npy")
        found_before = np.unpackbits(np.load(base / CONTAMINATED), count=len(before)).astype(bool)
        found = np.packbits(np.isin(hashes, before[found_before]))
        if not np.isin(hashes, before).all():
            jobs = [SearchJob(bucket, folder, folder / FINGERPRINTS) for bucket in earlier]
            found_in_buckets += run_jobs(search, jobs, sum(bucket.num_bytes for bucket in earlier))
    for bits in found_in_buckets:
        found = found | np.frombuffer(bits, dtype=np.uint8)
    np.save(folder / CONTAMINATED, found)


def contamination(rows: Path, folder: Path) -> pl.DataFrame:
    """Of each validation document (row_id, kind, domain, cluster) the share of its n-grams that the train side has."""
    fingerprints = Fingerprints(*(np.load(folder / FINGERPRINTS / f"{n}.npy") for n in ("hashes", "owner", "place")))
    found = np.unpackbits(np.load(folder / CONTAMINATED), count=len(fingerprints.hashes)).astype(bool)
    documents = pl.concat(
        read_val(rows, kind).select("row_id", "domain", "cluster", kind=pl.lit(kind)) for kind in KINDS
    )  # fmt: skip
    return documents.with_columns(share=pl.Series(fingerprints.shares(found, len(documents))))
