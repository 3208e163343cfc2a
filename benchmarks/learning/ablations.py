"""What each choice of the trainer is worth: one change at a time, same text, same number of slots, several seeds.

Every variant differs from the base in what its name says. Differences are paired by seed, in validation bits per byte
of single documents, in fp32. CPU time is beside them, as a technique that learns more may cost more. The text is the
one that `benchmarks/learning/text.py` prepares. Every result is appended to the file at once; a run whose result the
file holds already is not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning.scoring import Chunks, bits_per_byte, nats_of, plain_rows
from benchmarks.learning.text import prepare, recipe_of
from data.tokens.encode import Encoder
from data.tokens.shards import open_shards
from model.config.network import ModelConfig
from model.config.optim import OptimConfig
from model.config.training import TrainConfig
from model.tokens.packing import PackedTokens, Packing, ShardedTokens, cut, document_segments
from model.training.state import TrainState
from model.training.trainer import train
from tasks.planning.machine import keep_freed_memory

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ModelConfig(
    hidden_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=32, num_experts=8,
    num_experts_per_tok=2, moe_intermediate_size=208, initializer_range=0.05,
)  # fmt: skip
TRAIN = TrainConfig(batch_rows=4, micro_batch_rows=4, optim=OptimConfig(peak_lr=3e-3))
Rows = PackedTokens | ShardedTokens


@dataclass(frozen=True)
class Variant:
    """One change of the base."""

    of: str
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)
    rows: Callable[[Path, int], Rows] | None = None
    """Other rows than the packed ones, from the folder of the text and the slots of a row."""


def padded(folder: Path, tokens_per_row: int) -> Rows:
    """A row for each document, or piece of one that is longer, and padding behind it."""
    encoder = Encoder.open(folder)
    texts = [json.loads(line)["text"] for line in (folder / "train.jsonl").open(encoding="utf-8")]
    pieces = cut(document_segments(*encoder.encode(texts), encoder.end_of_text), tokens_per_row, encoder.end_ranks, 0.0)
    numbers = np.arange(len(pieces.lengths))
    return Packing(pieces, numbers, np.zeros_like(numbers)).fill_rows(
        tokens_per_row, encoder.end_of_text, encoder.id_dtype
    )


def unmasked(folder: Path, tokens_per_row: int) -> Rows:
    """Packed rows whose documents see each other."""
    shards = packed(folder, tokens_per_row).shards
    joined = tuple(replace(shard, segment_ids=np.minimum(shard.segment_ids, 1)) for shard in shards)
    return ShardedTokens(joined, "unmasked")


def packed(folder: Path, tokens_per_row: int) -> ShardedTokens:
    return open_shards(folder / "packed", "pretrain", "train", "packed")


VARIANTS = {
    "base": Variant("softmax, 8 experts of 208, 2 a token, made to sum to 1; AdamW; linear decay; packed"),
    "gate: sigmoid": Variant("gate", model={"gate": "sigmoid"}),
    "gate: sparsemax": Variant("gate", model={"gate": "sparsemax"}),
    "gate: entmax 1.5": Variant("gate", model={"gate": "entmax15"}),
    "gate: weights not made to sum to 1": Variant("gate", model={"norm_topk_prob": False}),
    "gate: one expert of 416, its weight made 1 (MiniMind's)": Variant(
        "gate", model={"num_experts_per_tok": 1, "moe_intermediate_size": 416, "num_experts": 4,
                       "minimind_compatible": True},
    ),
    "gate: one expert of 416, its own weight": Variant(
        "gate", model={"num_experts_per_tok": 1, "moe_intermediate_size": 416, "num_experts": 4,
                       "norm_topk_prob": False},
    ),
    "balance: none": Variant("balance", model={"router_aux_loss_coef": 0.0}),
    "balance: bias instead of loss": Variant("balance", model={"router_aux_loss_coef": 0.0, "router_bias": True}),
    "balance: counted over a micro-batch of one row": Variant(
        "balance", train={"balance_scope": "micro_batch", "micro_batch_rows": 1}
    ),
    "z-loss: none": Variant("z-loss", model={"router_z_loss_coef": 0.0}),
    "optimizer: Muon": Variant("optimizer", optim={"name": "muon"}),
    "optimizer: beta2 0.999": Variant("optimizer", optim={"beta2": 0.999}),
    "schedule: cosine to a tenth": Variant("schedule", optim={"decay": "cosine", "final_lr_share": 0.1}),
    "schedule: half at the peak, then decay": Variant("schedule", optim={"stable_share": 0.5}),
    "schedule: three quarters at the peak, then decay": Variant("schedule", optim={"stable_share": 0.75}),
    "schedule: three quarters at two thirds of the peak, then decay": Variant(
        "schedule", optim={"stable_share": 0.75, "peak_lr": 2e-3}
    ),
    "schedule: decay from twice the peak": Variant("schedule", optim={"peak_lr": 6e-3}),
    "schedule: constant after warm-up": Variant("schedule", optim={"stable_share": 0.95}),
    "batch: four times as large": Variant("batch", train={"batch_rows": 16, "micro_batch_rows": 16}),
    "precision: fp32": Variant("precision", train={"precision": "fp32"}),
    "packing: documents see each other": Variant("packing", rows=unmasked),
    "packing: one document a row, padded": Variant("packing", rows=padded),
    "experts: dense, as wide as what is active": Variant("experts", model={"dense": True}),
    "experts: 32 of 104, 4 a token": Variant(
        "experts", model={"num_experts": 32, "moe_intermediate_size": 104, "num_experts_per_tok": 4}
    ),
    "experts: 7 of 208 and a shared one, 1 and 1 a token": Variant(
        "experts", model={"num_experts": 7, "num_experts_per_tok": 1, "num_shared_experts": 1, "norm_topk_prob": False}
    ),
}  # fmt: skip


def run(variant: Variant, seed: int, folder: Path, tokens_per_row: int, num_tokens: int) -> dict[str, float]:
    """Train and score one variant."""
    rows = (variant.rows or packed)(folder, tokens_per_row)
    optim = replace(TRAIN.optim, **variant.optim)
    config = replace(TRAIN, seed=seed, num_tokens=num_tokens, optim=optim, **variant.train)
    model = replace(MODEL, **variant.model)
    state = TrainState.create(model, config, tokens_per_step=config.batch_rows * tokens_per_row)
    began = time.process_time()
    for _ in train(state, rows, config):
        pass
    seconds = time.process_time() - began
    chunks = Chunks.load(folder / "val.npz")
    bpb = bits_per_byte(nats_of(plain_rows(chunks), state.model, state.model), chunks)
    return {
        "bpb": bpb, "cpu_seconds": seconds, "real_tokens": state.tokens_seen,
        "total_parameters": model.total_parameters, "active_parameters": model.active_parameters,
    }  # fmt: skip


def report(found: dict[tuple[str, int], dict[str, float]]) -> list[str]:
    """A line of the table for each variant with a seed that the base has, too."""
    lines = [
        "| variant | seeds | bits per byte | spread | against the base | spread | CPU time |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in VARIANTS:
        seeds = [seed for variant, seed in found if variant == name and ("base", seed) in found]
        if not seeds:
            continue
        scores = [found[name, seed]["bpb"] for seed in seeds]
        gains = [found[name, seed]["bpb"] - found["base", seed]["bpb"] for seed in seeds]
        costs = [found[name, seed]["cpu_seconds"] / found["base", seed]["cpu_seconds"] for seed in seeds]
        lines.append(
            f"| {name} | {len(seeds)} | {statistics.mean(scores):.4f} | {max(scores) - min(scores):.4f} | "
            f"{statistics.mean(gains):+.4f} | {min(gains):+.4f} to {max(gains):+.4f} | {statistics.median(costs):.2f} |"
        )
    return lines


def finished(path: Path, asked: dict[str, Any]) -> dict[tuple[str, int], dict[str, float]]:
    """Results of the same text and size that a file holds."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(line["variant"], line["seed"]): line["result"] for line in lines if line["asked"] == asked}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=100_000, help="of training, for each run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=340, help="slots of a row")
    parser.add_argument("--only", default="", help="variants whose names hold this, and the base")
    parser.add_argument("--work", type=Path, default=ROOT / "store" / "bench-learn", help="where prepared text lies")
    parser.add_argument("--out", type=Path, help="results as json lines; what is there already is not run again")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    folder = prepare(recipe_of([], given.tokens), given.work)
    out = given.out or given.work / "ablations.jsonl"
    asked = {"text": folder.name, "slots": given.slots, "tokens_per_row": given.tokens}
    found = finished(out, asked)
    for seed in range(1, given.seeds + 1):
        for name, variant in VARIANTS.items():
            if (name, seed) in found or not (name == "base" or given.only in name):
                continue
            print(f"seed {seed}, {name}", file=sys.stderr, flush=True)
            found[name, seed] = run(variant, seed, folder, given.tokens, given.slots)
            with out.open("a") as stream:
                line = {"asked": asked, "variant": name, "seed": seed, "result": found[name, seed]}
                stream.write(json.dumps(line) + "\n")
    print("\n".join(report(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
