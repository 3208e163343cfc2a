"""nanochat's side of `benchmarks/learning/learn.py`: model, optimizer, packing and schedules of a checkout.

Its training script cannot be imported without running it, so its loop is here, a line for each of its own; the
functions of its schedules are taken out of the script and asked with the steps that the budget will hold. Its loader
gets our documents in place of its parquet files. Its optimizer's steps are compiled before the clock runs.
"""

from __future__ import annotations

import ast
import importlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer

from benchmarks.learning.scoring import Chunks, Job, TrainingClock, answer, bits_per_byte, marked_rows, nats_of
from model.tokens.tokenizer import END_OF_TEXT, special_id

SCRIPT = "scripts/base_train.py"
SCHEDULES = ("get_lr_multiplier", "get_muon_momentum", "get_weight_decay")
REFERENCE_BATCH_TOKENS = 2**19
"""Batch that its rates are for: they go with the square root of the batch."""


def run(job: Job) -> dict[str, Any]:
    """Train within the budget by its own parts, and score."""
    began = time.perf_counter()
    torch.set_num_threads(job.threads)
    sys.path.insert(0, job.checkout)
    gpt = importlib.import_module("nanochat.gpt")
    text, options = Path(job.text), job.options
    tokenizer = Tokenizer.from_file(str(text / "tokenizer.json"))
    between = special_id(tokenizer, END_OF_TEXT)  # before every document, as its own `<|bos|>`
    chunks = Chunks.load(text / "val.npz")
    head = chunks.head(options["curve_tokens"])
    batch_rows, length = options["batch_rows"], job.tokens_per_row

    def optimizer_of(network: Any) -> Any:
        scale = options["rate_multiplier"] * math.sqrt(batch_rows * length / REFERENCE_BATCH_TOKENS)
        rates = {name: rate * scale for name, rate in options["rates"].items()}
        return network.setup_optimizer(**rates, weight_decay=options["weight_decay"])

    def created() -> tuple[Any, Any]:
        torch.manual_seed(job.seed)
        shape = gpt.GPTConfig(sequence_len=length, vocab_size=tokenizer.get_vocab_size(), **options["model"])
        network = gpt.GPT(shape)
        network.init_weights()
        return network, optimizer_of(network)

    def loader() -> Iterator[Any]:
        return batches(text / "train.jsonl", tokenizer, between, batch_rows, length, job.seed)

    network, optimizer = created()
    compiled = torch.compile(network, dynamic=False)
    step(compiled, optimizer, next(loader())[:2])
    torch.manual_seed(job.seed)
    network.init_weights()
    optimizer = optimizer_of(network)

    def score(of: Chunks) -> Any:
        return nats_of(marked_rows(of, between, between, between), network, network)

    clock = TrainingClock(job.budget_seconds, lambda: bits_per_byte(score(head), head))
    schedules = Schedules(Path(job.checkout) / SCRIPT, options["schedule"], options["weight_decay"])
    set_up, steps, fed = time.perf_counter() - began, 0, loader()
    while clock.go_on(steps):
        schedules.set_rates(optimizer, steps, clock.expected_steps(steps))
        step(compiled, optimizer, next(fed)[:2])
        steps += 1
    clock.note(steps)
    nats = score(chunks)
    counts = network.num_scaling_params()
    looked_up = counts["wte"] + counts["value_embeds"]
    return {
        "bpb": bits_per_byte(nats, chunks), "firsts_bpb": bits_per_byte(nats, chunks, firsts_only=True),
        "curve": clock.curve, "optimizer_steps": steps, "tokens": steps * batch_rows * length,
        "trained_seconds": clock.trained_seconds, "cpu_seconds": clock.cpu_seconds, "set_up_seconds": set_up,
        "total_parameters": counts["total"], "active_parameters": counts["total"] - looked_up,
    }  # fmt: skip


def step(network: Any, optimizer: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    network(*batch).backward()
    optimizer.step()
    network.zero_grad(set_to_none=True)


def batches(path: Path, tokenizer: Tokenizer, between: int, rows: int, length: int, seed: int) -> Iterator[Any]:
    """Its loader's packed rows of our documents, epoch after epoch, in an order of each seed's own."""
    loader: Any = importlib.import_module("nanochat.dataloader")
    with path.open(encoding="utf-8") as stream:
        texts = [json.loads(line)["text"] for line in stream]

    def documents(split: str, resume: Any, size: int) -> Iterator[tuple[list[str], tuple[int, int, int]]]:
        order, epoch = torch.Generator().manual_seed(seed), 0
        while True:
            epoch += 1
            shuffled = torch.randperm(len(texts), generator=order).tolist()
            for start in range(0, len(shuffled), size):
                yield [texts[n] for n in shuffled[start : start + size]], (0, 0, epoch)

    def encode(some: list[str], prepend: int, num_threads: int) -> list[list[int]]:
        return [[prepend, *encoded.ids] for encoded in tokenizer.encode_batch(some, add_special_tokens=False)]

    loader._document_batches = documents
    its = SimpleNamespace(get_bos_token_id=lambda: between, encode=encode)
    made = loader.tokenizing_distributed_data_loader_with_state_bos_bestfit(its, rows, length, "train", device="cpu")
    return iter(made)


class Schedules:
    """The functions of its script that say learning rate, momentum and weight decay by step."""

    def __init__(self, script: Path, settings: dict[str, Any], weight_decay: float) -> None:
        tree = ast.parse(script.read_text(encoding="utf-8"))
        found: list[ast.stmt] = [
            node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in SCHEDULES
        ]
        if len(found) != len(SCHEDULES):
            raise RuntimeError(f"{script} has {len(found)} of {', '.join(SCHEDULES)}: another release of nanochat")
        self.names: dict[str, Any] = {
            "args": SimpleNamespace(**settings), "math": math, "weight_decay_scaled": weight_decay,
        }  # fmt: skip
        exec(compile(ast.Module(found, []), str(script), "exec"), self.names)

    def set_rates(self, optimizer: Any, step: int, of_steps: int) -> None:
        """As its loop does before each step, for a run of so many steps."""
        self.names["num_iterations"] = of_steps
        multiplier, momentum, decay = (self.names[name](step) for name in SCHEDULES)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * multiplier
            if group["kind"] == "muon":
                group |= {"momentum": momentum, "weight_decay": decay}


if __name__ == "__main__":
    answer(run, sys.argv[1:])
