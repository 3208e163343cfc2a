"""The folder of `evaluate`: scores document by document and overall, and sample replies."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

DOCUMENTS, SAMPLES, SCORES = "documents.parquet", "samples.json", "scores.json"


def read_documents(folder: Path) -> pl.DataFrame:
    """A row for each validation document: row_id, kind, source, nats, tokens, num_bytes."""
    return pl.read_parquet(folder / DOCUMENTS)


def read_samples(folder: Path) -> list[dict[str, str]]:
    """Prompt and reply of each sample."""
    return list(json.loads((folder / SAMPLES).read_text(encoding="utf-8")))
