"""What a model and a training run are, as frozen dataclasses, and what they cost in parameters and FLOPs.

The same dataclasses are the flow's parameters: Prefect publishes their schema and refuses unknown keys.
The defaults are the small CPU recipe, because a partial dictionary is filled from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

STRICT = {"extra": "forbid"}
"""For whoever builds these classes from plain values, as Prefect does: an unknown key is an error."""
IGNORED = -100
"""Label of a slot that is no target."""


def require(problems: list[str], owner: str) -> None:
    """Raise one ValueError that lists every problem found in a configuration, or none."""
    if problems:
        raise ValueError(f"{owner}: " + "; ".join(problems))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Qwen3-MoE transformer, named as Hugging Face's `Qwen3MoeConfig` names it.

    Every layer is a mixture of experts, top-k weights are renormalised and k is at least 2: with k = 1 the
    renormalised weight is the constant 1, and the router gets no gradient from the language-model loss.
    """

    __pydantic_config__ = STRICT

    vocab_size: int = 6400
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    num_experts: int = 4
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 384
    max_position_embeddings: int = 2048
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    router_aux_loss_coef: float = 0.01
    router_z_loss_coef: float = 0.001

    def __post_init__(self) -> None:
        problems = []
        if self.num_key_value_heads < 1 or self.num_attention_heads % self.num_key_value_heads:
            problems.append(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if not 2 <= self.num_experts_per_tok <= self.num_experts:
            problems.append(
                f"num_experts_per_tok ({self.num_experts_per_tok}) must lie between 2 and "
                f"num_experts ({self.num_experts}); with 1 the router would never learn"
            )
        if not 300 <= self.vocab_size <= 65_536:
            problems.append(f"vocab_size ({self.vocab_size}) must lie between 300 and 65536, ids are stored in 16 bits")
        if self.head_dim % 2:
            problems.append(f"head_dim ({self.head_dim}) must be even, rotary embedding turns pairs")
        if self.moe_intermediate_size % 8 or self.hidden_size % 8:
            problems.append(
                f"hidden_size ({self.hidden_size}) and moe_intermediate_size ({self.moe_intermediate_size}) "
                "must be multiples of 8, grouped matrix products need aligned rows"
            )
        if min(self.router_aux_loss_coef, self.router_z_loss_coef) < 0:
            problems.append(
                f"router_aux_loss_coef ({self.router_aux_loss_coef}) and router_z_loss_coef "
                f"({self.router_z_loss_coef}) must not be negative"
            )
        require(problems, "ModelConfig")

    @property
    def expert_parameters(self) -> int:
        """Parameters of one expert (gate, up and down projection)."""
        return 3 * self.hidden_size * self.moe_intermediate_size

    def _parameters(self, experts: int) -> int:
        attention = self.hidden_size * self.head_dim * (2 * self.num_attention_heads + 2 * self.num_key_value_heads)
        norms = 2 * self.hidden_size + 2 * self.head_dim
        router = self.num_experts * self.hidden_size
        layer = attention + norms + router + experts * self.expert_parameters
        return self.num_hidden_layers * layer + self.hidden_size + self.vocab_size * self.hidden_size

    @property
    def total_parameters(self) -> int:
        """All parameters; the tied embedding counts once."""
        return self._parameters(self.num_experts)

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes through."""
        return self._parameters(self.num_experts_per_tok)

    def train_flops_per_token(self, sequence_length_tokens: int) -> float:
        """FLOPs of forward and backward for one token: 6 per active weight, plus causal attention.

        The embedding look-up costs nothing but the tied output head does, so the table counts once.
        Source: the appendix of PaLM (arXiv 2204.02311), with half the score matrix for causal attention.
        """
        attention = 6 * self.num_hidden_layers * self.num_attention_heads * self.head_dim * sequence_length_tokens
        return 6.0 * self.active_parameters + attention


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How text becomes rows of tokens."""

    __pydantic_config__ = STRICT

    tokenizer: str = ""
    """A folder with tokenizer.json to load; empty trains a byte-level BPE of `ModelConfig.vocab_size` entries."""
    sequence_length_tokens: int = 512
    """Slots of one packed row."""

    def __post_init__(self) -> None:
        problems = []
        if not 16 <= self.sequence_length_tokens <= 32_768:
            problems.append(f"sequence_length_tokens ({self.sequence_length_tokens}) must lie between 16 and 32768")
        require(problems, "DataConfig")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and its schedule: warm-up, then linear decay to zero (arXiv 2502.15938)."""

    __pydantic_config__ = STRICT

    peak_lr: float = 2e-3
    warmup_share: float = 0.05
    """Share of all optimizer steps spent warming up."""
    final_lr_share: float = 0.0
    """Where the decay aims, as a share of the peak; it would arrive one step after the last."""
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        problems = []
        if self.peak_lr <= 0:
            problems.append(f"peak_lr ({self.peak_lr}) must be above 0")
        for name in ("warmup_share", "final_lr_share"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name} ({getattr(self, name)}) must lie between 0 and 1")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            problems.append(f"beta1 ({self.beta1}) and beta2 ({self.beta2}) must lie in [0, 1)")
        if self.clip_norm <= 0:
            problems.append(f"clip_norm ({self.clip_norm}) must be above 0")
        require(problems, "OptimConfig")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training stage; pretraining and SFT differ in batches and starting state only."""

    __pydantic_config__ = STRICT

    num_tokens: int = 1_000_000
    """Token slots to train on; the number of optimizer steps follows from it."""
    batch_rows: int = 16
    """Packed rows of one optimizer step."""
    micro_batch_rows: int = 16
    """Packed rows of one forward pass; the rest is gradient accumulation."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Autocast type; master weights, router and loss stay in fp32."""
    seed: int = 1
    eval_every_steps: int = 50
    eval_rows: int = 32
    """Packed validation rows scored each time; the evaluate stage scores all of them."""
    checkpoint_every_steps: int = 50
    keep_checkpoints: int = 2
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        problems = []
        for name in (
            "num_tokens",
            "batch_rows",
            "eval_every_steps",
            "eval_rows",
            "checkpoint_every_steps",
            "keep_checkpoints",
        ):
            if getattr(self, name) < 1:
                problems.append(f"{name} ({getattr(self, name)}) must be at least 1")
        if self.micro_batch_rows < 1 or self.batch_rows % self.micro_batch_rows:
            problems.append(
                f"batch_rows ({self.batch_rows}) must be a multiple of micro_batch_rows ({self.micro_batch_rows})"
            )
        require(problems, "TrainConfig")

    def num_steps(self, sequence_length_tokens: int) -> int:
        """Optimizer steps that cover `num_tokens`, at least one."""
        return max(1, round(self.num_tokens / (self.batch_rows * sequence_length_tokens)))
