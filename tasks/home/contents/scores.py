"""The folder of `evaluate`: scores document by document and overall, and sample replies."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

DOCUMENTS, SAMPLES, SCORES = "documents.parquet", "samples.json", "scores.json"
AUDITED = "audited.parquet"
"""The documents that no decision sees, in a file of their own so that nothing takes them for the others."""


def read_documents(folder: Path) -> pl.DataFrame:
    """A row for each validation document that decides: row_id, kind, source, domain, cluster, nats, tokens, num_bytes,
    contaminated_share."""
    return pl.read_parquet(folder / DOCUMENTS)


def read_audited(folder: Path) -> pl.DataFrame:
    """The same for each document of the audit slice."""
    return pl.read_parquet(folder / AUDITED)


def read_samples(folder: Path) -> list[dict[str, str]]:
    """Prompt and reply of each sample."""
    return list(json.loads((folder / SAMPLES).read_text(encoding="utf-8")))
