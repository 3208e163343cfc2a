"""Is there enough validation text to promote by? Asked before anything is trained, and when a model is judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from data.rows.parts import KINDS
from data.sides.read import read_val
from data.tokens.overlap import contamination
from model.tokens.packing import IGNORED
from model.tokens.tokenizer import load_tokenizer, token_byte_lengths
from tasks.evaluation.audit import apart
from tasks.home.contents.packed import open_packed, open_segments
from tasks.home.records import StageRecord
from tasks.pages.text import plural
from tasks.recipes.stage_configs import PromoteConfig


def deciding_text(rows: Path, tokens: StageRecord, audit_share: float) -> pl.DataFrame:
    """(row_id, kind, cluster, num_bytes) of each packed validation document that decides and has text that is scored.

    rows: folder of the split. tokens: record of the packed rows.
    """
    lengths = token_byte_lengths(load_tokenizer(tokens.path))
    scored = pl.concat(bytes_of(rows, tokens, kind, lengths) for kind in KINDS)
    deciding, _ = apart(contamination(rows, tokens.path), audit_share)
    return deciding.join(scored, on=["row_id", "kind"]).select("row_id", "kind", "cluster", "num_bytes")


def bytes_of(rows: Path, tokens: StageRecord, kind: str, byte_lengths: np.ndarray) -> pl.DataFrame:
    """(row_id, kind, num_bytes) of each packed validation document of a kind that has text that is scored."""
    packed, segments = open_packed(tokens, kind, "val"), open_segments(tokens, kind, "val")
    labels = packed.rows(np.arange(packed.num_rows)).labels
    until = np.concatenate([[0], np.cumsum(np.where(labels != IGNORED, byte_lengths[np.maximum(labels, 0)], 0))])
    first = segments["row"].to_numpy().astype(np.int64) * packed.sequence_length_tokens + segments["start"].to_numpy()
    found = until[first + segments["length"].to_numpy()] - until[first]
    named = read_val(rows, kind).select("row_id", document=pl.col("row").cast(pl.Int64), kind=pl.lit(kind))
    by_document = pl.DataFrame({"document": segments["document"].cast(pl.Int64), "num_bytes": found})
    summed = by_document.group_by("document").sum().filter(pl.col("num_bytes") > 0)
    return named.join(summed, on="document").select("row_id", "kind", "num_bytes")


def why_too_few(
    documents: int, num_bytes: int, found: str, config: PromoteConfig, *, clusters: int | None = None
) -> str:
    """Why these validation documents decide nothing; empty if they are enough.

    documents, num_bytes: how many with text that is scored, and the UTF-8 bytes of that text.
    found: how the sentence begins.
    clusters: of near duplicates, into which the documents fall: each counts for one. None if that is not known.
    """
    apart = documents if clusters is None else clusters
    if apart >= max(2, config.min_documents) and num_bytes >= config.min_bytes:
        return ""
    together = f" in {plural(apart, 'cluster')} of near duplicates" if apart != documents else ""
    return (
        f"too little validation text to promote by: {found} {plural(documents, 'validation document')}{together} with "
        f"{plural(num_bytes, 'byte')} of text that is scored, needed {config.min_documents:,} "
        f"(promote.min_documents) and {config.min_bytes:,} (promote.min_bytes); add data, raise split.val_share, or "
        "lower these numbers in the recipe"
    )
