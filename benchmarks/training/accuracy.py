"""What training in bf16 costs in accuracy: validation bits per byte after equal steps in bf16 and in fp32.

Both start from the same weights and read the same batches of the built-in text; both are scored in fp32.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.learning.scoring import Chunks, bits_per_byte, nats_of, plain_rows
from benchmarks.memory import measure
from benchmarks.training.shapes import Shape
from data.tokens.shards import open_shards
from model.config.optim import OptimConfig
from model.config.training import TrainConfig
from model.tokens.packing import PackedTokens, ShardedTokens
from model.training.batches import batch_of_step
from model.training.state import TrainState
from model.training.trainer import train_step
from tasks.planning.machine import keep_freed_memory

BATCH_ROWS, VAL_TARGETS, PEAK_LR = 4, 30_000, 2e-3
WANTED = 0.002
Pair = tuple[float, float]
"""Bits per byte after training in bf16 and in fp32."""


def bits_after(
    shape: Shape, tokens: PackedTokens | ShardedTokens, chunks: Chunks, steps: int, seed: int, precision: str
) -> float:
    """Bits per byte of the chunks after so many steps from the seed's weights, the whole schedule run through."""
    config = TrainConfig(
        batch_rows=BATCH_ROWS, micro_batch_rows=BATCH_ROWS, seed=seed, optim=OptimConfig(peak_lr=PEAK_LR)
    )
    config = replace(config, precision="bf16" if precision == "bf16" else "fp32")
    state = TrainState.create(shape.model, config)
    for step in range(steps):
        train_step(state, batch_of_step(tokens, BATCH_ROWS, seed, step), config, steps)
    return bits_per_byte(nats_of(plain_rows(chunks), state.model, state.model), chunks)


def run(shape: str, text: str, steps: str, seed: str, precision: str) -> float:
    """`bits_after` on prepared text, for a process of its own."""
    keep_freed_memory()
    tokens = open_shards(Path(text) / "packed", "pretrain", "train", "accuracy")
    chunks = Chunks.load(Path(text) / "val.npz").head(VAL_TARGETS)
    return bits_after(Shape.of(shape), tokens, chunks, int(steps), int(seed), precision)


def pairs(shape: Shape, work: Path, steps: int, seeds: int) -> list[Pair]:
    """A pair for each seed, on the built-in text in rows of the shape's length."""
    prepared = measure("benchmarks.learning.text:prepare_named", str(shape.tokens), str(work.resolve())).result
    found = []
    for seed in range(1, seeds + 1):
        words = shape.name, prepared["folder"], str(steps), str(seed)
        bf16, fp32 = (float(measure("benchmarks.training.accuracy:run", *words, p).result) for p in ("bf16", "fp32"))
        found.append((bf16, fp32))
    return found


def verdict(found: Sequence[Pair], steps: int, tokens: int) -> str:
    """A line: the mean difference relative to fp32, each seed's, and whether it is small enough."""
    shares = [bf16 / fp32 - 1 for bf16, fp32 in found]
    mean = statistics.mean(shares)
    bf16, fp32 = (statistics.mean(values) for values in zip(*found, strict=True))
    told = ", ".join(f"{share:+.2%}" for share in shares)
    return (
        f"{'met   ' if abs(mean) <= WANTED else 'missed'} after {steps} steps of {BATCH_ROWS} x {tokens}: bf16 "
        f"{bf16:.4f}, fp32 {fp32:.4f} bits per byte, {mean:+.2%} ({told}); within {WANTED:.1%} is wanted"
    )
