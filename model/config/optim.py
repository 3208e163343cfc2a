"""Optimizer and learning-rate schedule of a training stage, as a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from model.config.checks import STRICT, Range, Share, field_problems, require


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and schedule: warm-up, a stretch at the peak, decay; by default linear to zero (arXiv 2502.15938)."""

    __pydantic_config__ = STRICT

    name: Literal["adamw", "muon"] = "adamw"
    """`muon` moves matrices; embedding, output head, norms and routers stay with AdamW."""
    muon_matrices: Literal["all", "attention", "experts"] = "all"
    """Which matrices Muon moves: those of attention, of the feed-forward blocks, or both. The rest stays with AdamW."""
    peak_lr: Annotated[float, Range(0, 1e6, above=True)] = 2e-3
    """Highest learning rate, after the warm-up."""
    warmup_share: Share = 0.05
    """Share of all optimizer steps spent warming up."""
    stable_share: Share = 0.0
    """Share of all steps at the peak after warming up; the rest decays. 0.75 makes the warmup-stable-decay schedule
    (arXiv 2404.06395), `1 - warmup_share` never decays."""
    decay: Literal["linear", "cosine"] = "linear"
    """Shape of the fall from the peak to the final rate."""
    final_lr_share: Share = 0.0
    """Where the decay aims, as a share of the peak; it would arrive one step after the last."""
    weight_decay: Annotated[float, Range(0, 100)] = 0.1
    """Decoupled decay of matrices. Norms never decay."""
    router_weight_decay: Annotated[float, Range(0, 100)] = 0.0
    """Of the weights of routers."""
    embedding_weight_decay: Annotated[float, Range(0, 100)] = 0.0
    """Of the embedding, and of an output head of its own."""
    embedding_lr_factor: Annotated[float, Range(0, 10_000)] = 1.0
    """Learning rate of the embedding table over that of matrices and norms."""
    head_lr_factor: Annotated[float, Range(0, 10_000)] = 1.0
    """The same of an output head of its own."""
    router_lr_factor: Annotated[float, Range(0, 10_000)] = 1.0
    """The same of routers."""
    beta1: Annotated[float, Range(0, 1, below=True)] = 0.9
    """Decay of the mean of gradients in AdamW, for each step."""
    beta2: Annotated[float, Range(0, 1, below=True)] = 0.95
    """Decay of the mean of squared gradients in AdamW, for each step."""
    beta2_half_life_tokens: Annotated[float, Range(0, 1e15, above=True)] | None = None
    """Token slots after which a squared gradient counts half (arXiv 2507.07101), which sets beta2 for any batch size;
    null takes `beta2` as it stands."""
    muon_momentum: Annotated[float, Range(0, 1, below=True)] = 0.95
    """Decay of the mean of gradients in Muon, for each step."""
    clip_norm: Annotated[float, Range(0, 1e9, above=True)] = 1.0
    """Norm of the gradient above which a step is scaled down."""

    def __post_init__(self) -> None:
        problems = field_problems(self)
        if not problems and self.warmup_share + self.stable_share > 1 + 1e-9:  # 0.7 + 0.3 may be a last bit above 1
            problems.append(
                f"warmup_share ({self.warmup_share}) and stable_share ({self.stable_share}) must not sum to more than 1"
            )
        require(problems, "OptimConfig")
