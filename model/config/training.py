"""TrainConfig: batches, steps, precision, checkpoints and changes of experts of a training stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from model.config.checks import STRICT, require
from model.config.optim import OptimConfig

ChangeKind = Literal["upcycle", "grow", "prune", "merge"]


@dataclass(frozen=True, kw_only=True)
class ExpertChange:
    """A change of a model's experts in the middle of a training stage; `model.config.phases` derives what was before
    and when."""

    __pydantic_config__ = STRICT

    kind: ChangeKind
    """Out of a dense model, more experts, fewer of them, or fewer that are means of those there were."""
    at_share: float
    """Share of the stage's steps after which it is made; 1 is after the last."""
    num_experts_before: int | None = None
    """Experts of each layer until then; none for `upcycle`, before which the model is dense."""

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.at_share <= 1:
            problems.append(f"at_share ({self.at_share}) must lie above 0 and up to 1")
        if self.kind == "upcycle" and self.num_experts_before is not None:
            problems.append(
                f"num_experts_before ({self.num_experts_before}) has no place with upcycle: the model is dense before"
            )
        if self.kind != "upcycle" and (self.num_experts_before or 0) < 1:
            problems.append(f"num_experts_before ({self.num_experts_before}) must be at least 1 with {self.kind}")
        require(problems, "ExpertChange")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training stage; pretraining and SFT differ in batches and starting state only."""

    __pydantic_config__ = STRICT

    num_tokens: int = 1_000_000
    """Token slots to train on; the number of optimizer steps follows from it."""
    batch_rows: int = 16
    """Packed rows of one optimizer step, over all ranks."""
    micro_batch_rows: int = 16
    """Packed rows of one forward pass of one rank; the rest is gradient accumulation."""
    num_ranks: int = 1
    """Processes that train together, each with the whole model and its share of the rows of a step; a GPU each, or
    their share of the threads. Steps and the rows of each do not depend on it, sums are rounded otherwise."""
    balance_scope: Literal["step", "micro_batch"] = "step"
    """Over which tokens the balance loss counts the load: over the step so far on all ranks, or over a micro-batch of
    one rank alone, which keeps experts from specialising (arXiv 2501.11873)."""
    router_bias_rate: float = 1e-3
    """How far a router's bias moves in a step, with `ModelConfig.router_bias`."""
    router_bias_fade_share: float = 0.1
    """Share of all steps, at the end, in which the bias goes to zero; the last one is always among them."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Autocast type; master weights, router and loss stay in fp32."""
    compile_blocks: Literal["auto", "always", "never"] = "auto"
    """torch.compile of the transformer's blocks: `auto` in a stage so long that it pays, as a probe finds."""
    seed: int = 1
    eval_every_steps: int = 50
    eval_rows: int = 32
    """Packed validation rows scored each time; the evaluate stage scores all of them."""
    checkpoint_every_steps: int = 50
    keep_checkpoints: int = 2
    optim: OptimConfig = field(default_factory=OptimConfig)
    expert_changes: tuple[ExpertChange, ...] = ()
    """In order; the recipe's `model` is the one after the last."""

    def __post_init__(self) -> None:
        problems = []
        for name in (
            "num_tokens",
            "batch_rows",
            "eval_every_steps",
            "eval_rows",
            "checkpoint_every_steps",
            "keep_checkpoints",
            "num_ranks",
        ):
            if getattr(self, name) < 1:
                problems.append(f"{name} ({getattr(self, name)}) must be at least 1")
        if self.router_bias_rate < 0 or not 0 <= self.router_bias_fade_share <= 1:
            problems.append(
                f"router_bias_rate ({self.router_bias_rate}) must not be negative, router_bias_fade_share "
                f"({self.router_bias_fade_share}) must lie between 0 and 1"
            )
        if self.compile_blocks == "always" and self.precision == "fp32":
            problems.append(
                "compile_blocks (always) with precision (fp32): PyTorch compiles grouped products in bf16 alone; set "
                "compile_blocks: auto, or precision: bf16"
            )
        if self.micro_batch_rows < 1 or self.batch_rows % self.micro_batch_rows:
            problems.append(
                f"batch_rows ({self.batch_rows}) must be a multiple of micro_batch_rows ({self.micro_batch_rows})"
            )
        elif self.num_ranks > 0 and self.batch_rows % (self.micro_batch_rows * self.num_ranks):
            problems.append(
                f"batch_rows ({self.batch_rows}) must be a multiple of micro_batch_rows ({self.micro_batch_rows}) "
                f"times num_ranks ({self.num_ranks}): of {self.micro_batch_rows * self.num_ranks}"
            )
        require(problems, "TrainConfig")

    def num_steps(self, sequence_length_tokens: int) -> int:
        """Optimizer steps that cover `num_tokens`, at least one."""
        return max(1, round(self.num_tokens / (self.batch_rows * sequence_length_tokens)))
