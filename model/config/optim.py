"""Optimizer and learning-rate schedule of a training stage, as a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.config.checks import STRICT, require


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and schedule: warm-up, a stretch at the peak, decay; by default linear to zero (arXiv 2502.15938)."""

    __pydantic_config__ = STRICT

    name: Literal["adamw", "muon"] = "adamw"
    """`muon` moves the matrices of attention and experts; embeddings, norms and routers stay with AdamW."""
    peak_lr: float = 2e-3
    warmup_share: float = 0.05
    """Share of all optimizer steps spent warming up."""
    stable_share: float = 0.0
    """Share of all steps at the peak after warming up; the rest decays. 0.75 makes the warmup-stable-decay schedule
    (arXiv 2404.06395), `1 - warmup_share` never decays."""
    decay: Literal["linear", "cosine"] = "linear"
    final_lr_share: float = 0.0
    """Where the decay aims, as a share of the peak; it would arrive one step after the last."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices. Norms never decay."""
    router_weight_decay: float = 0.0
    embedding_weight_decay: float = 0.0
    embedding_lr_factor: float = 1.0
    """Learning rate of the embedding table over that of everything else."""
    beta1: float = 0.9
    beta2: float = 0.95
    beta2_half_life_tokens: float | None = None
    """Token slots after which a squared gradient counts half (arXiv 2507.07101), which sets beta2 for any batch size;
    null takes `beta2` as it stands."""
    muon_momentum: float = 0.95
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        problems = []
        if self.peak_lr <= 0:
            problems.append(f"peak_lr ({self.peak_lr}) must be above 0")
        for name in ("warmup_share", "stable_share", "final_lr_share"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name} ({getattr(self, name)}) must lie between 0 and 1")
        if self.warmup_share + self.stable_share > 1 + 1e-9:  # 0.7 + 0.3 may be a last bit above 1
            problems.append(
                f"warmup_share ({self.warmup_share}) and stable_share ({self.stable_share}) must not sum to more than 1"
            )
        for name in ("weight_decay", "router_weight_decay", "embedding_weight_decay", "embedding_lr_factor"):
            if getattr(self, name) < 0:
                problems.append(f"{name} ({getattr(self, name)}) must not be negative")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            problems.append(f"beta1 ({self.beta1}) and beta2 ({self.beta2}) must lie in [0, 1)")
        if self.beta2_half_life_tokens is not None and self.beta2_half_life_tokens <= 0:
            problems.append(f"beta2_half_life_tokens ({self.beta2_half_life_tokens}) must be above 0, or null")
        if not 0 <= self.muon_momentum < 1:
            problems.append(f"muon_momentum ({self.muon_momentum}) must lie in [0, 1)")
        if self.clip_norm <= 0:
            problems.append(f"clip_norm ({self.clip_norm}) must be above 0")
        require(problems, "OptimConfig")
