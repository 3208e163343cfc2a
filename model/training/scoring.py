"""Scoring: nats of every target, with the weights as they are and nothing random."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from model.network.transformer import Transformer
from model.precision import autocast
from model.tokens.packing import IGNORED, PackedTokens
from model.training.batches import take
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
    """Evaluation mode without gradients, and afterwards the mode that was.

    What is compiled for training runs as it is written: it would be compiled anew for every shape that is asked for.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        model.train(was_training)


def score(model: Transformer, tokens: PackedTokens, batch_rows: int = 16, precision: str = "bf16") -> np.ndarray:
    """-log p of each target in nats, (rows, slots) float32, 0 where a slot is no target.

    Leaves the model in the mode it was in. Rows are scored in order, so the result does not depend on the run.
    """
    with evaluating(model):
        return score_rows(model, tokens, batch_rows, precision)


def score_rows(model: Transformer, tokens: PackedTokens, batch_rows: int, precision: str) -> np.ndarray:
    device = next(model.parameters()).device
    nats = np.zeros(tokens.labels.shape, dtype=np.float32)
    for start in range(0, tokens.num_rows, batch_rows):
        rows = np.arange(start, min(start + batch_rows, tokens.num_rows))
        batch = take(tokens, rows).to(device)
        wanted = batch.labels_BT != IGNORED
        with autocast(device, precision):
            hidden, _ = model.hidden(batch.ids_BT, batch.segment_BT)
            chunks = zip(hidden[wanted].split(CHUNK_TOKENS), batch.labels_BT[wanted].split(CHUNK_TOKENS), strict=True)
            losses = [
                torch.nn.functional.cross_entropy(model.logits(h).float(), y, reduction="none") for h, y in chunks
            ]
        nats[start : start + len(rows)][wanted.cpu().numpy()] = torch.cat(losses).cpu().numpy() if losses else 0
    return nats


def totals(nats: np.ndarray, labels: np.ndarray, byte_lengths: np.ndarray) -> Totals:
    """Sum a score; `byte_lengths` is `model.tokenizer.token_byte_lengths`. Raises ValueError without a target."""
    wanted = labels != IGNORED
    num_bytes = int(byte_lengths[labels[wanted]].sum())
    if not num_bytes:
        raise ValueError("nothing to score: the validation side has no target with text; give it more rows")
    return Totals(float(nats[wanted].sum(dtype=np.float64)), int(wanted.sum()), num_bytes)
