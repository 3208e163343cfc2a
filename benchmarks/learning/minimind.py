"""MiniMind's side of `benchmarks/learning/learn.py`: model, dataset, sampler, schedule and training loop of a checkout.

`train_epoch` of its pretraining script runs unchanged, with the globals it reads from its own module set from outside;
its loader asks the clock before each batch, and `get_lr` is asked for the elapsed share of the budget instead of steps.
"""

from __future__ import annotations

import importlib
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from benchmarks.learning.scoring import Chunks, Job, TrainingClock, answer, bits_per_byte, marked_rows, nats_of

BEGIN, END, PADDING = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
"""As its tokenizer_config.json names them."""
NEVER = sys.maxsize
FIRST_SEED = 42
"""The seed of its trainer; seeds of this benchmark are a thousand apart from there, as it adds the epoch."""
SCHEDULE_UNITS = 1_000_000


def run(job: Job) -> dict[str, Any]:
    """Train within the budget by its own loop, and score."""
    began = time.perf_counter()
    torch.set_num_threads(job.threads)
    sys.path.insert(0, job.checkout)
    script = importlib.import_module("trainer.train_pretrain")
    from transformers import PreTrainedTokenizerFast

    text, options = Path(job.text), job.options
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(text / "tokenizer.json"), bos_token=BEGIN, eos_token=END, pad_token=PADDING
    )
    seed = FIRST_SEED + 1_000 * job.seed
    script.setup_seed(seed)
    config = script.MiniMindConfig(use_moe=True, vocab_size=len(tokenizer), **options["model"])
    network = importlib.import_module("model.model_minimind").MiniMindForCausalLM(config)
    dataset = script.PretrainDataset(str(text / "train.jsonl"), tokenizer, max_length=job.tokens_per_row)
    chunks = Chunks.load(text / "val.npz")
    head = chunks.head(options["curve_tokens"])

    def score(of: Chunks) -> Any:
        rows = marked_rows(of, tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
        return nats_of(rows, network, lambda ids_BT: network(ids_BT).logits)

    clock = TrainingClock(job.budget_seconds, lambda: bits_per_byte(score(head), head))
    loader = Loader(script, dataset, options["batch_rows"], seed, clock)
    set_globals(script, network, config, options, clock)
    set_up = time.perf_counter() - began
    script.train_epoch(0, loader, NEVER)
    clock.note(loader.steps)
    nats = score(chunks)
    return {
        "bpb": bits_per_byte(nats, chunks), "firsts_bpb": bits_per_byte(nats, chunks, firsts_only=True),
        "curve": clock.curve, "optimizer_steps": -(-loader.steps // options["accumulation_steps"]),
        "tokens": loader.tokens, "trained_seconds": clock.trained_seconds, "cpu_seconds": clock.cpu_seconds,
        "set_up_seconds": set_up, "total_parameters": sum(p.numel() for p in network.parameters()),
        "active_parameters": active_parameters(network, config),
    }  # fmt: skip


def set_globals(script: Any, network: Any, config: Any, options: dict[str, Any], clock: TrainingClock) -> None:
    """Set the globals that `train_epoch` reads, as the script does on a CPU with its defaults."""
    own_schedule = script.get_lr
    script.args = Namespace(
        device="cpu", dtype="bfloat16", epochs=1, learning_rate=options["learning_rate"],
        accumulation_steps=options["accumulation_steps"], grad_clip=options["grad_clip"],
        log_interval=NEVER, save_interval=NEVER,
    )  # fmt: skip
    script.model, script.lm_config, script.autocast_ctx = network, config, nullcontext()
    script.scaler = torch.amp.GradScaler("cpu", enabled=False)
    script.optimizer = script.optim.AdamW(network.parameters(), lr=options["learning_rate"])
    script.get_lr = lambda step, total, lr: own_schedule(round(SCHEDULE_UNITS * clock.share), SCHEDULE_UNITS, lr)


class Loader:
    """MiniMind's batches, epoch after epoch, until the budget is used up."""

    def __init__(self, script: Any, dataset: Any, batch_rows: int, seed: int, clock: TrainingClock) -> None:
        self.script, self.dataset, self.batch_rows, self.seed = script, dataset, batch_rows, seed
        self.clock, self.steps, self.tokens = clock, 0, 0

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        epoch = 0
        while True:
            self.script.setup_seed(self.seed + epoch)
            order = torch.randperm(len(self.dataset)).tolist()
            sampler = self.script.SkipBatchSampler(order, self.batch_rows, 0)
            batches = iter(self.script.DataLoader(self.dataset, batch_sampler=sampler))
            while self.clock.go_on(self.steps):
                batch = next(batches, None)
                if batch is None:
                    break
                yield batch
                self.steps += 1
                self.tokens += int((batch[1] >= 0).sum())
            else:
                return
            epoch += 1


def active_parameters(network: Any, config: Any) -> int:
    """Parameters that one token uses: all but the experts it is not routed to."""
    named = list(network.named_parameters())
    expert = sum(p.numel() for name, p in named if ".mlp.experts.0." in name)
    return sum(p.numel() for _, p in named) - expert * (config.num_experts - config.num_experts_per_tok)


if __name__ == "__main__":
    answer(run, sys.argv[1:])
