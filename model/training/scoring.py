"""Scoring: nats of every target, with the weights as they are and nothing random."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from model.network.transformer import Transformer
from model.precision import autocast
from model.tokens.packing import IGNORED, PackedTokens
from model.training.batches import batch_of_rows
from model.training.cross_entropy import CHUNK_TOKENS


@dataclass(frozen=True)
class Totals:
    """Sums over targets; ratios are formed once, at the end."""

    nats: float
    tokens: int
    num_bytes: int

    @property
    def loss(self) -> float:
        """Nats per supervised token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of target text: comparable across tokenizers. Special tokens cost bits and add no bytes."""
        return self.nats / (np.log(2) * self.num_bytes)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, and afterwards the mode that was before.

    Blocks that are compiled for training run eagerly: they would be compiled anew for every shape.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        model.train(was_training)


def score(model: Transformer, packed: PackedTokens, batch_rows: int = 16, precision: str = "bf16") -> np.ndarray:
    """-log p of each target of `packed` in nats, (rows, slots) float32, 0 where a slot is no target.

    `batch_rows` rows are scored at a time, in order, and computed in `precision`, "bf16" or "fp32". Leaves the model in
    the mode it was in.
    """
    with evaluating(model):
        return score_rows(model, packed, batch_rows, precision)


def score_rows(model: Transformer, packed: PackedTokens, batch_rows: int, precision: str) -> np.ndarray:
    """What `score` returns, in the mode that the model is in."""
    device = next(model.parameters()).device
    nats = np.zeros(packed.labels.shape, dtype=np.float32)
    for start in range(0, packed.num_rows, batch_rows):
        rows = np.arange(start, min(start + batch_rows, packed.num_rows))
        batch = batch_of_rows(packed, rows).to(device)
        supervised_BT = batch.labels_BT != IGNORED
        with autocast(device, precision):
            hidden, _ = model.hidden(batch.ids_BT, batch.segment_BT)
            hidden_MD, labels_M = hidden[supervised_BT], batch.labels_BT[supervised_BT]
            chunks = zip(hidden_MD.split(CHUNK_TOKENS), labels_M.split(CHUNK_TOKENS), strict=True)
            losses = [F.cross_entropy(model.logits(h).float(), labels, reduction="none") for h, labels in chunks]
        nats[start : start + len(rows)][supervised_BT.cpu().numpy()] = torch.cat(losses).cpu().numpy() if losses else 0
    return nats


def totals(nats: np.ndarray, labels: np.ndarray, byte_lengths: np.ndarray) -> Totals:
    """Sum a score over its targets. Raises ValueError without one that has text.

    `nats` and `labels` are (rows, slots), `byte_lengths` (V,) is `model.tokens.tokenizer.token_byte_lengths`.
    """
    supervised = labels != IGNORED
    num_bytes = int(byte_lengths[labels[supervised]].sum())
    if not num_bytes:
        raise ValueError("nothing to score: the validation side has no target with text; give it more rows")
    return Totals(float(nats[supervised].sum(dtype=np.float64)), int(supervised.sum()), num_bytes)
