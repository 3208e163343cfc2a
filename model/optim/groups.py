"""Parameter groups and the optimizer that moves them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from model.config.optim import OptimConfig
from model.optim.muon import MuonAdamW


def kind_of(name: str, parameter: nn.Parameter) -> str:
    """Which group a parameter belongs to, by its name in the model and its shape."""
    if parameter.dim() < 2:
        return "vectors"
    if "embed_tokens" in name:
        return "embedding"
    if "lm_head" in name:
        return "head"
    if name.endswith(".mlp.gate.weight"):
        return "router"
    if ".self_attn." in name:
        return "attention"
    return "gate_up" if name.endswith("gate_up_proj") else "down"


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Every parameter in one group, with the group's decay and its factor on the learning rate.

    Norms and other vectors never decay; embedding, head and routers have a decay of their own. `stacked` is how many
    matrices lie above one another in a weight, for Muon; groups without it are left to AdamW.
    """

    def matrices(which: str, stacked: int) -> dict[str, Any]:
        moved = {"stacked": stacked} if config.muon_matrices in ("all", which) else {}
        return {"weight_decay": config.weight_decay, **moved}

    options: dict[str, dict[str, Any]] = {
        "attention": matrices("attention", 1),
        "down": matrices("experts", 1),
        "gate_up": matrices("experts", 2),
        "router": {"weight_decay": config.router_weight_decay, "lr_factor": config.router_lr_factor},
        "embedding": {"weight_decay": config.embedding_weight_decay, "lr_factor": config.embedding_lr_factor},
        "head": {"weight_decay": config.embedding_weight_decay, "lr_factor": config.head_lr_factor},
        "vectors": {"weight_decay": 0.0},
    }
    members: dict[str, list[nn.Parameter]] = {kind: [] for kind in options}
    for name, parameter in model.named_parameters():
        members[kind_of(name, parameter)].append(parameter)
    common = {"lr_factor": 1.0}
    return [common | options[kind] | {"kind": kind, "params": params} for kind, params in members.items() if params]


def build_optimizer(model: nn.Module, config: OptimConfig, tokens_per_step: int = 0) -> torch.optim.Optimizer:
    """The optimizer `config.name`, at the peak learning rate.

    `tokens_per_step`, token slots of one optimizer step, is needed only for `beta2_half_life_tokens`; ValueError
    without it.
    """
    groups = parameter_groups(model, config)
    betas = (config.beta1, second_moment_decay(config, tokens_per_step))
    optimizer: torch.optim.Optimizer
    if config.name == "muon":
        optimizer = MuonAdamW(groups, lr=config.peak_lr, betas=betas, momentum=config.muon_momentum)
    else:
        optimizer = torch.optim.AdamW(groups, lr=config.peak_lr, betas=betas, fused=True)
    set_learning_rate(optimizer, config.peak_lr)
    return optimizer


def second_moment_decay(config: OptimConfig, tokens_per_step: int = 0) -> float:
    """AdamW's beta2, from its half-life in tokens if that is set: 0.5^(tokens per step / half-life).

    Source: arXiv 2507.07101, which keeps the half-life over batch sizes.
    """
    if config.beta2_half_life_tokens is None:
        return config.beta2
    if tokens_per_step < 1:
        raise ValueError(
            f"optim.beta2_half_life_tokens ({config.beta2_half_life_tokens}) needs the tokens of one step, got "
            f"tokens_per_step ({tokens_per_step}); pass batch_rows * sequence_length_tokens, or set optim.beta2 instead"
        )
    return float(0.5 ** (tokens_per_step / config.beta2_half_life_tokens))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group `lr` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
