"""This project's side of `benchmarks/learning/learn.py`: its trainer's step, its optimizer, its packed rows."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.learning.scoring import Chunks, Job, Session, answer, bits_per_byte, nats_of, plain_rows
from data.tokens.shards import open_shards
from model.config.network import ModelConfig
from model.config.optim import OptimConfig
from model.config.training import TrainConfig
from model.training.batches import batch_of_step
from model.training.state import TrainState
from model.training.trainer import train_step
from tasks.planning.machine import keep_freed_memory


def run(job: Job) -> dict[str, Any]:
    """Train within the budget, the schedule on elapsed time, and score."""
    began = time.perf_counter()
    torch.set_num_threads(job.threads)
    keep_freed_memory()
    text, options = Path(job.text), job.options
    tokens = open_shards(text / "packed", "pretrain", "train", "learn")
    rows = options["batch_rows"]
    config = TrainConfig(batch_rows=rows, micro_batch_rows=rows, seed=job.seed, optim=OptimConfig(**options["optim"]))
    model = ModelConfig(**options["model"])
    state = TrainState.create(model, config, tokens_per_step=rows * job.tokens_per_row)
    chunks = Chunks.load(text / "val.npz")
    head = chunks.head(options["curve_tokens"])

    def score(of: Chunks) -> Any:
        return nats_of(plain_rows(of), state.model, state.model)

    session = Session(job.budget_seconds, lambda: bits_per_byte(score(head), head))
    set_up = time.perf_counter() - began
    while session.go_on(state.step):
        batch = batch_of_step(tokens, rows, job.seed, state.step)
        train_step(state, batch, config, session.expected_steps(state.step))
    session.note(state.step)
    nats = score(chunks)
    return {
        "bpb": bits_per_byte(nats, chunks), "firsts_bpb": bits_per_byte(nats, chunks, firsts_only=True),
        "curve": session.curve, "optimizer_steps": state.step, "tokens": state.tokens_seen,
        "trained_seconds": session.trained_seconds, "cpu_seconds": session.cpu_seconds, "set_up_seconds": set_up,
        "total_parameters": model.total_parameters, "active_parameters": model.active_parameters,
    }  # fmt: skip


if __name__ == "__main__":
    answer(run, sys.argv[1:])
