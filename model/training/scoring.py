"""Scoring: nats of every target, with the weights as they are and nothing random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.config.training import Precision
from model.experts.losses import expert_counts
from model.experts.router import Routing
from model.network.transformer import Transformer
from model.precision import autocast
from model.tokens.packing import IGNORED, PackedTokens
from model.training.batches import Batch, batch_of_rows
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
def evaluating(model: Transformer) -> Iterator[None]:
    """Evaluation mode without gradients, and afterwards the mode that was before.

    Blocks that are compiled for training run eagerly: they would be compiled anew for every shape. Where none is,
    nothing is said to the compiler, whose import takes seconds.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager") if model.blocks_compiled else nullcontext():
            yield
    finally:
        model.train(was_training)


def score(model: Transformer, packed: PackedTokens, batch_rows: int = 16, precision: Precision = "auto") -> np.ndarray:
    """-log p of each target of `packed` in nats, (rows, slots) float32, 0 where a slot is no target.

    `batch_rows` rows are scored at a time, in order. Leaves the model in the mode it was in.
    """
    with evaluating(model):
        return score_rows(model, packed, batch_rows, precision)


def score_rows(model: Transformer, packed: PackedTokens, batch_rows: int, precision: Precision) -> np.ndarray:
    """What `score` returns, in the mode that the model is in."""
    nats = np.zeros(packed.labels.shape, dtype=np.float32)
    for some in passes(model, packed, batch_rows, precision):
        losses = [F.cross_entropy(logits, labels, reduction="none") for logits, labels in some.chunks(model, precision)]
        some.write(nats, losses)
    return nats


@dataclass(frozen=True)
class RowsRead:
    """Some rows after the network, before the output head."""

    numbers: np.ndarray
    """Of the rows, ascending without a gap."""
    batch: Batch
    hidden_BTD: Tensor
    routing: list[Routing]

    @property
    def supervised_BT(self) -> Tensor:
        return self.batch.labels_BT != IGNORED

    def chunks(self, model: Transformer, precision: Precision) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (C, V) in fp32 and labels (C,) of the targets, so many at a time that their logits fit."""
        hidden_MD, labels_M = self.hidden_BTD[self.supervised_BT], self.batch.labels_BT[self.supervised_BT]
        for hidden, labels in zip(hidden_MD.split(CHUNK_TOKENS), labels_M.split(CHUNK_TOKENS), strict=True):
            with autocast(hidden.device, precision):
                logits = model.logits(hidden)
            if len(labels):
                yield logits.float(), labels

    def write(self, into: np.ndarray, values: Sequence[Tensor]) -> None:
        """Put a value a target into an array (rows, slots) of all packed rows."""
        there = self.supervised_BT.cpu().numpy()
        into[self.numbers[0] : self.numbers[-1] + 1][there] = torch.cat(list(values)).cpu().numpy() if values else 0


def passes(model: Transformer, packed: PackedTokens, batch_rows: int, precision: Precision) -> Iterator[RowsRead]:
    """All rows in order, `batch_rows` at a time, through the network in the mode that it is in."""
    device = next(model.parameters()).device
    for start in range(0, packed.num_rows, batch_rows):
        numbers = np.arange(start, min(start + batch_rows, packed.num_rows))
        batch = batch_of_rows(packed, numbers).to(device)
        with autocast(device, precision):
            hidden_BTD, routing = model.hidden(batch.ids_BT, batch.segment_BT)
        yield RowsRead(numbers, batch, hidden_BTD, routing)


@dataclass(frozen=True)
class Measured:
    """What one pass over packed rows tells. Shapes: R = rows, T = slots, S = sampled rows, L = layers, E = experts,
    K = experts a token; a dense model has no layers."""

    nats_RT: np.ndarray
    """-log p of each target, float32, 0 where a slot is no target."""
    confidence_RT: np.ndarray
    """Probability of the likeliest id, float32, 0 where a slot is no target."""
    correct_RT: np.ndarray
    """Whether the likeliest id is the target."""
    counts_LE: np.ndarray
    """Real tokens that each expert got, int64."""
    routes_STLK: np.ndarray
    """Experts of each slot of the sampled rows, by number, uint16."""


def measure(
    model: Transformer,
    packed: PackedTokens,
    sampled_rows: np.ndarray,
    batch_rows: int = 16,
    precision: Precision = "auto",
) -> Measured:
    """What `score` gives, and from the same pass how sure the model was, its experts' load and some rows' routes.

    sampled_rows: numbers of the rows whose routes are kept, ascending.
    batch_rows, precision: as of `score`. Leaves the model in the mode it was in.
    """
    shape = packed.labels.shape
    nats_RT, confidence_RT = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    correct_RT = np.zeros(shape, dtype=bool)
    config, routes = model.config, []
    layers = 0 if config.dense else config.num_hidden_layers
    counts_LE = np.zeros((layers, config.num_experts if layers else 0), dtype=np.int64)
    with evaluating(model):
        for some in passes(model, packed, batch_rows, precision):
            parts = [sureness(logits, labels) for logits, labels in some.chunks(model, precision)]
            for into, values in zip((nats_RT, confidence_RT, correct_RT), zip(*parts, strict=True), strict=False):
                some.write(into, values)
            if layers:
                counts_LE += expert_counts(some.routing, some.batch.real_N, config.num_experts).cpu().numpy()
                routes_BTLK = torch.stack([r.experts_NK for r in some.routing], dim=1).unflatten(0, (-1, shape[1]))
                here = np.isin(some.numbers, sampled_rows)
                routes.append(routes_BTLK[torch.from_numpy(here)].cpu().numpy().astype(np.uint16))
    none = np.zeros((0, shape[1], layers, config.num_experts_per_tok), dtype=np.uint16)
    return Measured(nats_RT, confidence_RT, correct_RT, counts_LE, np.concatenate([none, *routes]))


def sureness(logits_CV: Tensor, labels_C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each target its nats, the probability of the likeliest id, and whether that is the target; (C,) each."""
    nats_C = F.cross_entropy(logits_CV, labels_C, reduction="none")
    best_C, choice_C = logits_CV.max(dim=-1)
    own_C = logits_CV.gather(1, labels_C[:, None])[:, 0]
    # log p of the likeliest id is that of the target and the distance of their logits; it must not pass 0 by rounding.
    return nats_C, (best_C - own_C - nats_C).clamp(max=0).exp(), choice_C == labels_C


def totals(nats: np.ndarray, labels: np.ndarray, byte_lengths: np.ndarray) -> Totals:
    """Sum a score over its targets. Raises ValueError without one that has text.

    `nats` and `labels` are (rows, slots), `byte_lengths` (V,) is `model.tokens.tokenizer.token_byte_lengths`.
    """
    supervised = labels != IGNORED
    num_bytes = int(byte_lengths[labels[supervised]].sum())
    if not num_bytes:
        raise ValueError("nothing to score: the validation side has no target with text; give it more rows")
    return Totals(float(nats[supervised].sum(dtype=np.float64)), int(supervised.sum()), num_bytes)
