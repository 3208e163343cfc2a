"""The folder of `tokens`: a tokenizer, packed rows in shards, and figures of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import polars as pl

from data.tokens.answers import HeldAnswers
from data.tokens.shards import open_segments as segments_in
from data.tokens.shards import open_shards
from model.tokens.packing import ShardedTokens
from tasks.home.records import Content, StageRecord

REPLAYED_KIND = "pretrain"
"""Of the rows that fine-tuning mixes in."""
FIGURES, SCORED_TEXT = "figures.json", "scored-text.parquet"


def digest_of_kind(tokens: StageRecord, kind: str) -> str:
    """Digest of the packed rows of one kind and the tokenizer: what a training stage of this kind depends on."""
    return tokens.digest_of_files(f"{kind}.", "tokenizer.json")


def answers_in(figures: Mapping[str, Any]) -> dict[str, HeldAnswers]:
    """What packed rows of both sides hold of each source's answers, of figures of a folder."""
    found: dict[str, HeldAnswers] = {}
    for side in ("answers", "val_answers"):
        for source, values in figures.get(side, {}).items():
            found[source] = found.get(source, HeldAnswers()).merge(HeldAnswers.from_dict(values))
    return dict(sorted(found.items()))


def read_answers(tokens: Content) -> dict[str, HeldAnswers]:
    return answers_in(json.loads((tokens.path / FIGURES).read_text(encoding="utf-8")))


def all_answers(by_source: Mapping[str, HeldAnswers]) -> HeldAnswers:
    return reduce(HeldAnswers.merge, by_source.values(), HeldAnswers())


def train_tokens(tokens: Content) -> dict[str, dict[str, int]]:
    """Slots of the train side that hold a token, by source and domain."""
    sizes = json.loads((tokens.path / FIGURES).read_text(encoding="utf-8")).get("sizes", {})
    return {source: {domain: count for domain, (count, _) in of.items()} for source, of in sizes.items()}


def open_packed(tokens: StageRecord, kind: str, side: str) -> ShardedTokens:
    """Packed rows of one kind and side, memory-mapped."""
    return open_shards(tokens.path, kind, side, f"{digest_of_kind(tokens, kind)}/{kind}.{side}")


def with_text(own: ShardedTokens, tokens: StageRecord) -> ShardedTokens:
    """Rows of fine-tuning, and behind them those of the text that it mixes in, numbered through."""
    text = open_packed(tokens, REPLAYED_KIND, "train")
    return ShardedTokens(own.shards + text.shards, f"{own.fingerprint} {text.fingerprint}")


def open_segments(tokens: Content, kind: str, side: str) -> pl.DataFrame:
    """Which document is where in the packed rows: row, start, length, document (its number), source."""
    return segments_in(tokens.path, kind, side)


def write_scored_text(folder: Path, by_kind: Mapping[str, pl.DataFrame]) -> None:
    """Note of each validation document (row_id, num_bytes) how much of its text is scored."""
    pl.concat(its.with_columns(kind=pl.lit(kind)) for kind, its in by_kind.items()).write_parquet(folder / SCORED_TEXT)


def read_scored_text(tokens: Content) -> pl.DataFrame:
    """(row_id, num_bytes, kind) of each validation document with text that is scored."""
    return pl.read_parquet(tokens.path / SCORED_TEXT)
