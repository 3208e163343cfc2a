"""What a night will cost, said before it starts."""

from __future__ import annotations

import dataclasses
import time

import torch

from model.batches import Batch
from model.config import ModelConfig, TrainConfig
from model.trainer import TrainState, train_step
from tasks.recipe import Recipe
from tasks.training import best_device, keep_freed_memory

PROBE_SECONDS = 2.5
BYTES_PER_PARAMETER = 16
"""fp32 weight and gradient, two moments of AdamW."""
BYTES_PER_CHECKPOINTED_PARAMETER = 12


def seconds_per_token(model: ModelConfig, config: TrainConfig, tokens: int) -> float:
    """Time of one training token at this shape, measured with real optimizer steps on random ids.

    One micro-batch a step; steps go on for a few seconds, the first one is not counted, the fastest counts.
    """
    keep_freed_memory()
    config = dataclasses.replace(config, batch_rows=config.micro_batch_rows)
    device = best_device()
    state = TrainState.create(model, config, device)
    ids = torch.randint(0, model.vocab_size, (config.batch_rows, tokens), generator=torch.Generator().manual_seed(0))
    batch = Batch(ids, ids, torch.ones_like(ids)).to(device)
    train_step(state, batch, config, num_steps=1_000)
    fastest, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < PROBE_SECONDS:
        fastest = min(fastest, train_step(state, batch, config, num_steps=1_000).seconds)
    return fastest / ids.numel()


def activation_bytes(model: ModelConfig, rows: int, tokens: int) -> int:
    """Memory of one forward pass that the backward pass needs, roughly, at two bytes a value.

    Per token and layer about 14 hidden vectors, the heads' scores in fp32 and bf16, and 4 vectors of each chosen
    expert's width; per token the logits and their gradient in fp32.
    """
    per_layer = 2 * (14 * model.hidden_size + 4 * model.num_experts_per_tok * model.moe_intermediate_size)
    per_layer += 6 * model.num_attention_heads * tokens // 2
    return rows * tokens * (model.num_hidden_layers * per_layer + 8 * model.vocab_size)


def estimate(recipe: Recipe) -> str:
    """Parameters, steps, time, memory and disk of a recipe, as text. Time comes from a probe of a few seconds."""
    model, length = recipe.model, recipe.data.sequence_length_tokens
    weights = model.total_parameters
    rows = max(recipe.pretrain.micro_batch_rows, recipe.sft.micro_batch_rows)
    memory = weights * BYTES_PER_PARAMETER + activation_bytes(model, rows, length)
    kept = recipe.pretrain.keep_checkpoints + recipe.sft.keep_checkpoints
    disk = weights * (BYTES_PER_CHECKPOINTED_PARAMETER * kept + 2 * 4)
    lines = [
        f"model      {weights:,} parameters, {model.active_parameters:,} active, "
        f"{model.num_experts} experts of which {model.num_experts_per_tok} a token",
        f"FLOPs      {model.train_flops_per_token(length):.3g} a token",
    ]
    total = 0.0
    for name, config in (("pretrain", recipe.pretrain), ("sft", recipe.sft)):
        steps = config.num_steps(length)
        seconds = seconds_per_token(model, config, length) * steps * config.batch_rows * length
        total += seconds
        lines.append(f"{name:<10} {steps:,} steps of {config.batch_rows * length:,} tokens, about {duration(seconds)}")
    device = best_device().type
    lines += [
        f"time       about {duration(total)} of training on this machine ({device}), data and evaluation on top",
        f"memory     about {memory / 2**30:.1f} GiB for weights, optimizer and activations, and about 2 GiB "
        "for the libraries and the built-in text",
        f"disk       about {disk / 2**30:.2f} GiB for checkpoints and exports",
    ]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.1f} h"
