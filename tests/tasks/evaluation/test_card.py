"""What a model's card says of its sources: where the text is from, and nothing that lets a reader in."""

from __future__ import annotations

import pytest

from data.rows.statistics import NightStatistics
from tasks.evaluation.card import on_card
from tasks.recipes.stage_configs import SourceConfig


@pytest.mark.parametrize(
    ("location", "origin"),
    [
        ("https://ann:secret@example.org/a/b.jsonl", "https://example.org/a/b.jsonl"),
        ("https://example.org/b.jsonl?X-Amz-Signature=secret#x", "https://example.org/b.jsonl"),
        ("s3://bucket/rows/part-?.jsonl", "s3://bucket/rows/part-?.jsonl"),
        ("hub:owner/name", "hub:owner/name"),
        ("/home/ann/rows.jsonl", "a file"),
    ],
)
def test_a_source_is_named_without_what_opens_it(location: str, origin: str) -> None:
    source = SourceConfig(name="web", kind="pretrain", location=location, licence="mit")
    found = on_card(source, NightStatistics())
    assert (found.origin, found.licence, found.rows) == (origin, "mit", None)
