"""The validation rows that a training stage scores now and then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from model.config.training import Precision, TrainConfig
from model.network.transformer import Transformer
from model.tokens.packing import PackedTokens
from model.tokens.tokenizer import load_tokenizer, token_byte_lengths
from model.training.batches import Batch, batch_of_rows
from model.training.scoring import score, totals
from tasks.home.contents.packed import open_packed, open_segments
from tasks.home.records import StageRecord


@dataclass(frozen=True)
class Validator:
    """Scores the same fixed validation rows each time it is asked."""

    tokens: PackedTokens
    source_of: dict[str, np.ndarray]
    """For each source, which slots are its own."""
    byte_lengths: np.ndarray
    precision: Precision

    @classmethod
    def open(cls, ref: StageRecord, kind: str, config: TrainConfig) -> Validator:
        """A random but fixed choice of `config.eval_rows` packed rows of the validation side."""
        whole = open_packed(ref, kind, "val")
        rows = np.sort(np.random.default_rng(0).permutation(whole.num_rows)[: config.eval_rows])
        chosen = whole.rows(rows)
        segments = open_segments(ref, kind, "val").filter(pl.col("row").is_in(rows.tolist()))
        place = {int(row): index for index, row in enumerate(rows)}
        source_of = {s: np.zeros(chosen.labels.shape, dtype=bool) for s in segments["source"].unique().sort()}
        for row, start, length, source in segments.select("row", "start", "length", "source").iter_rows():
            source_of[source][place[row], start : start + length] = True
        byte_lengths = token_byte_lengths(load_tokenizer(ref.path))
        return cls(chosen, source_of, byte_lengths, config.precision)

    def metrics(self, model: Transformer) -> dict[str, float]:
        nats = score(model, self.tokens, precision=self.precision)
        overall = totals(nats, self.tokens.labels, self.byte_lengths)
        by_source = {
            f"val/bpb.{source}": totals(nats[own], self.tokens.labels[own], self.byte_lengths).bits_per_byte
            for source, own in self.source_of.items()
            if self.byte_lengths[np.maximum(self.tokens.labels[own], 0)].sum()
        }
        return {"val/loss": overall.loss, "val/bpb": overall.bits_per_byte, **by_source}

    def batches(self, rows: int, device: torch.device) -> list[Batch]:
        """The same rows, some at a time."""
        numbers = np.arange(self.tokens.num_rows)
        return [batch_of_rows(self.tokens, numbers[start : start + rows]).to(device) for start in numbers[::rows]]
