"""One training step at the demo's shape, ours beside transformers' Qwen3-MoE, interleaved in one process.

Prints the median tokens/s of each, the spread and the ratio to ours, and writes them with the machine's facts to
`benchmarks/results/train_step.json`. Quote the ratios, never the bare numbers.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from model.batches import Batch
from model.config import ModelConfig, TrainConfig
from model.export import hugging_face_config
from model.trainer import TrainState, autocast, train_step
from tasks.recipe import load_recipe
from tasks.training import keep_freed_memory

ROUNDS, WARMUP_ROUNDS = 12, 2
RESULTS = Path(__file__).with_name("results")


def ours(model: ModelConfig, config: TrainConfig, batch: Batch) -> Callable[[], None]:
    state = TrainState.create(model, config)

    def step() -> None:
        train_step(state, batch, config, num_steps=1_000)

    return step


def theirs(model: ModelConfig, config: TrainConfig, batch: Batch, implementation: str) -> Callable[[], None]:
    """The same shape, loss, optimizer and precision; its own balance loss, no document mask (it has none to build)."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(
            json.dumps(hugging_face_config(model) | {"output_router_logits": True})
        )
        network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    network.set_experts_implementation(implementation)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.optim.peak_lr, fused=True)

    def step() -> None:
        with autocast(torch.device("cpu"), config.precision):
            network(input_ids=batch.ids_BT, labels=batch.ids_BT).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure(steps: dict[str, Callable[[], None]], tokens: int) -> dict[str, list[float]]:
    """Tokens/s of each contestant in each round; they take turns, so drift of the machine hits all alike."""
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(WARMUP_ROUNDS + ROUNDS):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if number >= WARMUP_ROUNDS:
                rates[name].append(tokens / (time.perf_counter() - started))
    return rates


def main() -> None:
    keep_freed_memory()
    recipe = load_recipe("demo")
    length = recipe.data.sequence_length_tokens
    config = replace(recipe.pretrain, batch_rows=16, micro_batch_rows=16)
    ids = torch.randint(0, recipe.model.vocab_size, (16, length), generator=torch.Generator().manual_seed(0))
    batch = Batch(ids, ids, torch.ones_like(ids))
    rates = measure(
        {
            "ours, bf16": ours(recipe.model, config, batch),
            "ours, fp32": ours(recipe.model, replace(config, precision="fp32"), batch),
            "transformers grouped_mm, bf16": theirs(recipe.model, config, batch, "grouped_mm"),
            "transformers eager, bf16": theirs(recipe.model, config, batch, "eager"),
        },
        ids.numel(),
    )
    first = statistics.median(next(iter(rates.values())))
    print(f"{'':32} {'tokens/s':>9} {'min':>7} {'max':>7} {'of ours':>8}")
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"{name:32} {middle:9,.0f} {min(values):7,.0f} {max(values):7,.0f} {middle / first:8.2f}")
    facts = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {p: importlib.metadata.version(p) for p in ("torch", "transformers")},
        "shape": hugging_face_config(recipe.model),
        "rows": 16,
        "tokens_per_row": length,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "train_step.json").write_text(json.dumps({"machine": facts, "tokens_per_s": rates}, indent=1) + "\n")


if __name__ == "__main__":
    main()
