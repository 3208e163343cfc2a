"""What a recipe's fine-tuning learns and forgets: one change at a time, from the model that a home's night pretrained.

    python -m flows demo
    python -m benchmarks.learning.fine_tuning --home HOME [--recipe demo] [--seeds 1,2,3] [--only replay]

Both kinds of validation rows are scored, all of them. Seeds are those of the order of rows; the pretrained weights are
the same. A line is printed for each run, as JSON, when it is done.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.config.network import ModelConfig
from model.tokens.tokenizer import load_tokenizer, token_byte_lengths
from model.training import checkpoint
from model.training.scoring import score, totals
from model.training.state import TrainState
from model.training.trainer import train
from tasks.errors import NightStopped
from tasks.home.contents.packed import open_packed
from tasks.home.records import StageRecord
from tasks.planning.machine import best_device, keep_freed_memory
from tasks.questions.history import History
from tasks.recipes.deployments import load_recipe
from tasks.recipes.sft_config import SftConfig
from tasks.training.start import open_rows
from tasks.training.trained import MODEL_CONFIG, final_weights

KINDS = ("chat", "pretrain")


BASE: dict[str, Any] = {"sft.num_tokens": 450_000, "sft.replay_share": 0.0, "sft.optim.peak_lr": 1.5e-3}
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "replay: a tenth": {"sft.replay_share": 0.1},
    "replay: a quarter": {"sft.replay_share": 0.25},
    "replay: half": {"sft.replay_share": 0.5},
    "replay: a quarter, peak 0.7e-3": {"sft.replay_share": 0.25, "sft.optim.peak_lr": 0.7e-3},
    "replay: a quarter, peak 2.2e-3": {"sft.replay_share": 0.25, "sft.optim.peak_lr": 2.2e-3},
    "replay: a quarter, 293 steps": {"sft.replay_share": 0.25, "sft.num_tokens": 600_000},
    "rate: peak 0.7e-3": {"sft.optim.peak_lr": 0.7e-3},
    "rate: peak 3e-3": {"sft.optim.peak_lr": 3e-3},
    "rate: embeddings x 5, head x 1.5": {"sft.optim.embedding_lr_factor": 5, "sft.optim.head_lr_factor": 1.5},
    "Muon for attention": {"sft.optim.name": "muon", "sft.optim.muon_matrices": "attention"},
    "steps: 110": {"sft.num_tokens": 225_000},
    "steps: 439": {"sft.num_tokens": 900_000},
}
"""Overrides of the recipe, on top of BASE; steps are those of the demo's rows."""


def alike(record: StageRecord, model: ModelConfig) -> bool:
    """Whether a stage trained a recipe's model; which way its experts are computed is chosen on each machine."""
    kept = ModelConfig(**json.loads((record.path / MODEL_CONFIG).read_text(encoding="utf-8")))
    return replace(kept, expert_path=model.expert_path) == model


def run(pretrained: StageRecord, packed: StageRecord, config: SftConfig) -> dict[str, float]:
    """Bits per byte of both kinds after fine-tuning, steps and CPU seconds."""
    rows, replay = open_rows(packed, "chat", config)
    model = ModelConfig(**json.loads((pretrained.path / MODEL_CONFIG).read_text(encoding="utf-8")))
    state = TrainState.create(model, config, best_device(), config.batch_rows * rows.sequence_length_tokens)
    checkpoint.load_weights(state.model, final_weights(pretrained.path))
    began = time.process_time()
    for _ in train(state, rows, config, replay=replay):
        pass
    spent, byte_lengths = time.process_time() - began, token_byte_lengths(load_tokenizer(packed.path))
    scores = {}
    for kind in KINDS:
        whole = open_packed(packed, kind, "val")
        held_out = whole.rows(np.arange(whole.num_rows))
        nats = score(state.model, held_out, precision=config.precision)
        scores[kind] = totals(nats, held_out.labels, byte_lengths).bits_per_byte
    return scores | {"steps": state.step, "cpu_seconds": spent}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="home of a night of the recipe")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--only", default="", help="variants whose names hold this")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    history, recipe = History(given.home), load_recipe(given.recipe)
    pretrained = next((r for r in history.records("pretrain") if not r.branch and alike(r, recipe.model)), None)
    packed = history.packed_for(pretrained) if pretrained else None
    if pretrained is None or packed is None:
        parser.error(f"no night of recipe {recipe.name} has pretrained its model in {given.home}")
    for seed in map(int, given.seeds.split(",")):
        for name in (name for name in VARIANTS if given.only in name):
            changed = recipe.with_overrides(BASE | VARIANTS[name] | {"sft.seed": seed})
            result = run(pretrained, packed, changed.sft)
            print(json.dumps({"variant": name, "seed": seed} | {k: round(v, 4) for k, v in result.items()}), flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NightStopped as stop:
        sys.exit(str(stop))
