"""The folder of `tokens`: a tokenizer, packed rows in shards, and figures of them."""

from __future__ import annotations

import polars as pl

from data.tokens.shards import open_segments as segments_in
from data.tokens.shards import open_shards
from model.tokens.packing import ShardedTokens
from tasks.home.records import Content, StageRecord

FIGURES = "figures.json"


def digest_of_kind(tokens: StageRecord, kind: str) -> str:
    """Digest of the packed rows of one kind and the tokenizer: what a training stage of this kind depends on."""
    return tokens.digest_of_files(f"{kind}.", "tokenizer.json")


def open_packed(tokens: StageRecord, kind: str, side: str) -> ShardedTokens:
    """Packed rows of one kind and side, memory-mapped."""
    return open_shards(tokens.path, kind, side, f"{digest_of_kind(tokens, kind)}/{kind}.{side}")


def open_segments(tokens: Content, kind: str, side: str) -> pl.DataFrame:
    """Which document is where in the packed rows: row, start, length, document (its number), source."""
    return segments_in(tokens.path, kind, side)
