"""TrainConfig: batches, steps, precision, checkpoints and changes of experts of a training stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from model.config.checks import STRICT, Range, Seed, Share, field_problems, require
from model.config.optim import OptimConfig

Precision = Literal["auto", "bf16", "fp32"]

ChangeKind = Literal["upcycle", "grow", "prune", "merge"]


@dataclass(frozen=True, kw_only=True)
class ExpertChange:
    """A change of a model's experts in the middle of a training stage; `model.config.phases` derives what was before
    and when."""

    __pydantic_config__ = STRICT

    kind: ChangeKind
    """Out of a dense model, more experts, fewer of them, or fewer that are means of those there were."""
    at_share: Annotated[float, Range(0, 1, above=True)]
    """Share of the stage's steps after which it is made; 1 is after the last."""
    num_experts_before: Annotated[int, Range(1, 4_096)] | None = None
    """Experts of each layer until then; none for `upcycle`, before which the model is dense."""

    def __post_init__(self) -> None:
        problems = field_problems(self)
        if self.kind == "upcycle" and self.num_experts_before is not None:
            problems.append(
                f"num_experts_before ({self.num_experts_before}) has no place with upcycle: the model is dense before"
            )
        if self.kind != "upcycle" and self.num_experts_before is None:
            problems.append(f"num_experts_before (None) must be a number with {self.kind}")
        require(problems, "ExpertChange")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training stage; pretraining and SFT differ in batches and starting state only."""

    __pydantic_config__ = STRICT

    num_tokens: Annotated[int, Range(1, 10**15)] = 1_000_000
    """Token slots to train on; the number of optimizer steps follows from it."""
    batch_rows: Annotated[int, Range(1, 10**6)] = 16
    """Packed rows of one optimizer step, over all ranks."""
    micro_batch_rows: Annotated[int, Range(1, 10**6)] = 16
    """Packed rows of one forward pass of one rank; the rest is gradient accumulation."""
    num_ranks: Annotated[int, Range(1, 4_096)] = 1
    """Processes that train together, each with the whole model and its share of the rows of a step; a GPU each, or
    their share of the threads. Steps and the rows of each do not depend on it, sums are rounded otherwise."""
    balance_scope: Literal["step", "micro_batch"] = "step"
    """Over which tokens the balance loss counts the load: over the step so far on all ranks, or over a micro-batch of
    one rank alone, which keeps experts from specialising (arXiv 2501.11873)."""
    router_bias_rate: Share = 1e-3
    """How far a router's bias moves in a step, with `ModelConfig.router_bias`."""
    router_bias_fade_share: Share = 0.1
    """Share of all steps, at the end, in which the bias goes to zero; the last one is always among them."""
    precision: Precision = "auto"
    """Type of products; `auto` is bf16, but fp32 on CPUs without units for bf16. Weights, router and loss stay in
    fp32."""
    compile_blocks: Literal["auto", "always", "never"] = "auto"
    """torch.compile of the transformer's blocks: `auto` in a stage so long that it pays, as a probe finds."""
    seed: Seed = 1
    """Of fresh weights and of the order of rows."""
    eval_every_steps: Annotated[int, Range(1, 10**12)] = 50
    """Steps between validations."""
    eval_rows: Annotated[int, Range(1, 10**9)] = 32
    """Packed validation rows scored each time; the evaluate stage scores all of them."""
    checkpoint_every_steps: Annotated[int, Range(1, 10**12)] = 50
    """Steps between checkpoints: what a kill can cost."""
    keep_checkpoints: Annotated[int, Range(1, 10**6)] = 2
    """Newest checkpoints that stay on the disk."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and learning rate."""
    expert_changes: tuple[ExpertChange, ...] = ()
    """In order; the recipe's `model` is the one after the last."""

    def __post_init__(self) -> None:
        require(field_problems(self), "TrainConfig")
        problems = []
        if self.compile_blocks == "always" and self.precision == "fp32":
            problems.append(
                "compile_blocks (always) with precision (fp32): PyTorch compiles grouped products in bf16 alone; set "
                "compile_blocks: auto, or precision: bf16"
            )
        if self.batch_rows % self.micro_batch_rows:
            problems.append(
                f"batch_rows ({self.batch_rows}) must be a multiple of micro_batch_rows ({self.micro_batch_rows})"
            )
        elif self.batch_rows % (self.micro_batch_rows * self.num_ranks):
            problems.append(
                f"batch_rows ({self.batch_rows}) must be a multiple of micro_batch_rows ({self.micro_batch_rows}) "
                f"times num_ranks ({self.num_ranks}): of {self.micro_batch_rows * self.num_ranks}"
            )
        require(problems, "TrainConfig")

    def num_steps(self, sequence_length_tokens: int) -> int:
        """Optimizer steps that cover `num_tokens`, at least one."""
        return max(1, round(self.num_tokens / (self.batch_rows * sequence_length_tokens)))
