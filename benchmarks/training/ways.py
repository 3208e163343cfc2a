"""Implementations that `benchmarks/training/train_step.py` compares: each builds a function that does one step."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.config.network import ModelConfig
from model.config.training import TrainConfig
from model.exchange.export import hugging_face_config
from model.network.transformer import compile_blocks
from model.precision import autocast
from model.training.batches import Batch
from model.training.state import TrainState
from model.training.trainer import train_step

CPU = torch.device("cpu")
LEARNING_RATE, CLIP_NORM = 1e-4, 1.0
Step = Callable[[], None]
Build = Callable[[ModelConfig, Tensor, Path | None], Step]


@dataclass(frozen=True)
class Way:
    build: Build
    needs_minimind: bool = False


def next_ids(ids_BT: Tensor) -> Tensor:
    return torch.cat([ids_BT[:, 1:], ids_BT[:, :1]], dim=1)


def ours(**changes: Any) -> Build:
    """This trainer; `precision` and `compiled` go to the training, everything else to the model."""

    def build(model: ModelConfig, ids_BT: Tensor, _: Path | None) -> Step:
        given = dict(changes)
        config = TrainConfig(
            batch_rows=len(ids_BT), micro_batch_rows=len(ids_BT), precision=given.pop("precision", "bf16")
        )
        config = replace(config, optim=replace(config.optim, peak_lr=LEARNING_RATE))
        compiled = given.pop("compiled", False)
        state = TrainState.create(replace(model, **given), config)
        if compiled:
            compile_blocks(state.model)
        batch = Batch(ids_BT, next_ids(ids_BT), torch.ones_like(ids_BT))
        return lambda: void(train_step(state, batch, config, num_steps=1_000))

    return build


def void(_: object) -> None:
    return None


def stepper(network: nn.Module, loss_of: Callable[[], Tensor], precision: str) -> Step:
    """Forward, backward, clip and AdamW, as the trainers of both do."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, fused=True)

    def step() -> None:
        with autocast(CPU, precision) if precision == "bf16" else nullcontext():
            loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def transformers_way(implementation: str) -> Build:
    """Qwen3MoeForCausalLM with its own balance loss, and no mask of documents: it has none to build."""

    def build(model: ModelConfig, ids_BT: Tensor, _: Path | None) -> Step:
        from transformers import AutoConfig, AutoModelForCausalLM

        with tempfile.TemporaryDirectory() as folder:
            content = hugging_face_config(model) | {"output_router_logits": True}
            (Path(folder) / "config.json").write_text(json.dumps(content))
            network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
        network.set_experts_implementation(implementation)
        return stepper(network.train(), lambda: network(input_ids=ids_BT, labels=ids_BT).loss, "bf16")

    return build


def minimind_module(checkout: Path | None) -> Any:
    """The module that holds MiniMind's model, under a name that is not in the way of ours."""
    if checkout is None:
        raise ValueError("MiniMind needs a checkout: --minimind PATH")
    spec = importlib.util.spec_from_file_location("minimind", checkout / "model" / "model_minimind.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{checkout} holds no model")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def minimind_config(module: Any, model: ModelConfig) -> Any:
    """Its configuration of the same shape."""
    return module.MiniMindConfig(
        hidden_size=model.hidden_size, num_hidden_layers=model.num_hidden_layers, use_moe=True,
        vocab_size=model.vocab_size, num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.num_key_value_heads, head_dim=model.head_dim, num_experts=model.num_experts,
        num_experts_per_tok=model.num_experts_per_tok, moe_intermediate_size=model.moe_intermediate_size,
        rope_theta=model.rope_theta, rms_norm_eps=model.rms_norm_eps,
    )  # fmt: skip


def minimind_way(precision: str) -> Build:
    """MiniMind's own model; its trainer runs in fp32 on a CPU."""

    def build(model: ModelConfig, ids_BT: Tensor, checkout: Path | None) -> Step:
        module = minimind_module(checkout)
        network = module.MiniMindForCausalLM(minimind_config(module, model)).train()

        def loss_of() -> Tensor:
            result = network(ids_BT, labels=ids_BT)
            loss: Tensor = result.loss + result.aux_loss
            return loss

        return stepper(network, loss_of, precision)

    return build


WAYS = {
    "ours": Way(ours()),
    "ours compiled": Way(ours(compiled=True)),
    "ours looped": Way(ours(expert_path="loop")),
    "ours fp32": Way(ours(precision="fp32")),
    "ours dense": Way(ours(dense=True)),
    "MiniMind as it trains": Way(minimind_way("fp32"), needs_minimind=True),
    "MiniMind bf16": Way(minimind_way("bf16"), needs_minimind=True),
    "transformers eager": Way(transformers_way("eager")),
    "transformers grouped_mm": Way(transformers_way("grouped_mm")),
}
"""transformers' `batched_mm` is not among them: it copies its experts for each token, 7 GB for one product here."""
