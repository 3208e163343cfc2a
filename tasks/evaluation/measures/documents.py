"""One pass over the validation rows of a kind: scores document by document, sureness, experts' load, some routes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from tokenizers import Tokenizer

from data.tokens.encode import Encoder
from data.tokens.tokenise import pack_table
from model.config.training import Precision
from model.tokens.packing import IGNORED
from model.tokens.tokenizer import token_byte_lengths
from tasks.evaluation.measures.experts import routes_table, sampled_rows

if TYPE_CHECKING:
    from model.network.transformer import Transformer


@dataclass(frozen=True)
class ScoredRows:
    """What one pass told of rows of a kind."""

    documents: pl.DataFrame
    """(row_id, source, nats, tokens, num_bytes) of each document that has a target."""
    confidence: np.ndarray
    """Probability of the likeliest id at each target, float32, shape (targets,)."""
    correct: np.ndarray
    """Whether that id was the target, shape (targets,)."""
    counts_LE: np.ndarray
    """Real tokens that each expert got; a dense model has no rows."""
    routes: pl.DataFrame | None
    """As `routes_table` gives it, of a fixed sample of the rows; None of a dense model."""
    read_tokens: int
    """Slots that held a token."""
    seconds: float
    """Of the pass."""


def score_rows(
    model: Transformer, tokenizer: Tokenizer, rows: pl.DataFrame, max_tokens: int, precision: Precision
) -> ScoredRows:  # fmt: skip
    """Score each row with the model's own tokenizer, so a champion with another vocabulary is asked for the same text.

    rows: `row_id`, `source`, `domain` and `text` or `conversations`.
    max_tokens: of a packed row; a longer document takes several.
    precision: "bf16", "fp32" or "auto", what products are computed in.
    """
    from model.training.scoring import measure  # torch takes seconds to import; a reused stage must not pay

    packed = pack_table(rows, Encoder.of(tokenizer), max_tokens)
    tokens, sampled = packed.tokens, sampled_rows(packed.tokens.num_rows)
    started = time.perf_counter()
    found = measure(model, tokens, sampled, precision=precision)
    seconds = time.perf_counter() - started
    targets = tokens.labels != IGNORED
    by_segment = packed.segments.select("row_id", "source").with_columns(
        nats=pl.Series(packed.sums(found.nats_RT)),
        tokens=pl.Series(packed.sums(targets)).cast(pl.Int64),
        num_bytes=pl.Series(packed.sums(packed.target_bytes(token_byte_lengths(tokenizer)))).cast(pl.Int64),
    )
    return ScoredRows(
        documents=by_segment.group_by("row_id", "source", maintain_order=True).sum(),
        confidence=found.confidence_RT[targets],
        correct=found.correct_RT[targets],
        counts_LE=found.counts_LE,
        routes=routes_table(tokens.rows(sampled), found.routes_STLK) if len(found.counts_LE) else None,
        read_tokens=int((tokens.segment_ids != 0).sum()),
        seconds=seconds,
    )
