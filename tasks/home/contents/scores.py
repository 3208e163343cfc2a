"""The folder of `evaluate`: scores document by document and overall, intervals, replies, choices and routes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

DOCUMENTS, SAMPLES, SCORES = "documents.parquet", "samples.json", "scores.json"
INTERVALS, CALIBRATION, EXPERTS = "intervals.json", "calibration.json", "experts.json"
CHOICES, ROUTES = "choices.parquet", "routes.parquet"
AUDITED = "audited.parquet"
"""The documents that no decision sees, in a file of their own so that nothing takes them for the others."""
SPEED = "speed.json"
"""Below the stage's logs: times count for no digest."""


def read_documents(folder: Path) -> pl.DataFrame:
    """A row for each validation document that decides: row_id, kind, source, domain, cluster, nats, tokens, num_bytes,
    contaminated_share."""
    return pl.read_parquet(folder / DOCUMENTS)


def read_audited(folder: Path) -> pl.DataFrame:
    """The same for each document of the audit slice."""
    return pl.read_parquet(folder / AUDITED)


def read_replies(folder: Path) -> list[dict[str, Any]]:
    """Every reply: prompt, reply, and shown, ended, valid, ngrams, repeated_ngrams, which older evaluations lack."""
    return list(json.loads((folder / SAMPLES).read_text(encoding="utf-8")))


def read_samples(folder: Path) -> list[dict[str, str]]:
    """Prompt and reply of the recipe's own prompts, for people to read."""
    shown = (each for each in read_replies(folder) if each.get("shown", True))
    return [{"prompt": each["prompt"], "reply": each["reply"]} for each in shown]


def read_table(folder: Path, name: str) -> list[dict[str, Any]]:
    """INTERVALS, CALIBRATION or EXPERTS, a line each; empty of an evaluation from before there was one."""
    path = folder / name
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []
