"""What a model and a training run are, as frozen dataclasses, and what they cost in parameters and FLOPs.

The same dataclasses are the flow's parameters: Prefect publishes their schema and refuses unknown keys.
The defaults are the small CPU recipe, because a partial dictionary is filled from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from model.config.checks import STRICT, Range, field_problems, require

Gate = Literal["softmax", "sigmoid", "sparsemax", "entmax15"]
ExpertPath = Literal["auto", "grouped", "loop"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Qwen3-MoE transformer, named as Hugging Face's `Qwen3MoeConfig` names it; every layer is a mixture of experts.

    With its defaults it exports as one; `export_obstacles` lists what cannot be exported.
    """

    __pydantic_config__ = STRICT

    vocab_size: Annotated[int, Range(300, 65_536)] = 6400
    """Ids are stored in 16 bits."""
    hidden_size: Annotated[int, Range(8, 65_536)] = 256
    """Width of the residual stream, a multiple of 8."""
    num_hidden_layers: Annotated[int, Range(1, 1_000)] = 4
    """Transformer layers."""
    num_attention_heads: Annotated[int, Range(1, 1_024)] = 4
    """Query heads, a multiple of num_key_value_heads."""
    num_key_value_heads: Annotated[int, Range(1, 1_024)] = 2
    """Heads of keys and values, each shared by several query heads."""
    head_dim: Annotated[int, Range(2, 1_024)] = 64
    """Width of an attention head; even."""
    num_experts: Annotated[int, Range(1, 4_096)] = 4
    """Experts in each layer."""
    num_experts_per_tok: Annotated[int, Range(1, 4_096)] = 2
    """Experts that a token passes in each layer."""
    moe_intermediate_size: Annotated[int, Range(8, 262_144)] = 384
    """Width of one expert, a multiple of 8."""
    gate: Gate = "softmax"
    """How the scores of the router become weights of experts."""
    norm_topk_prob: bool = True
    """Whether the weights of the chosen experts are made to sum to 1."""
    num_expert_groups: Annotated[int, Range(1, 4_096)] = 1
    """Groups of experts, of which a token may use some alone; 1 limits nothing."""
    num_groups_per_tok: Annotated[int, Range(1, 4_096)] = 1
    """Groups whose experts a token may go to; experts of a group would lie on one machine."""
    num_shared_experts: Annotated[int, Range(0, 4_096)] = 0
    """Experts that every token passes, as one block of so many times the width."""
    router_bias: bool = False
    """Balance by a bias in the choice of experts (arXiv 2408.15664), beside or instead of the balance loss."""
    dense: bool = False
    """No router and no experts, but one block as wide as what a token passes of them."""
    minimind_compatible: bool = False
    """Allow one expert per token with its weight made 1, as MiniMind has it: such a router never learns from text."""
    expert_path: ExpertPath = "grouped"
    """How experts are computed: one grouped matrix product, one product after the other, or whichever a probe at the
    start of a training stage finds to be the faster one; elsewhere `auto` is grouped."""
    tie_word_embeddings: bool = True
    """Whether the output head is the embedding table; else it has a table of its own."""
    max_position_embeddings: Annotated[int, Range(1, 2**24)] = 2048
    """Longest row in tokens."""
    rope_theta: Annotated[float, Range(1, 1e12)] = 10_000.0
    """Base of the rotary position embedding."""
    rms_norm_eps: Annotated[float, Range(0, 1, above=True)] = 1e-6
    """Added to the mean square before its root is taken."""
    initializer_range: Annotated[float, Range(0, 100, above=True)] = 0.02
    """Standard deviation of fresh weights."""
    embedding_initializer_range: Annotated[float, Range(0, 100, above=True)] | None = None
    """The same of the embedding table; null takes `initializer_range`."""
    residual_initializer_share: Annotated[float, Range(0, 100)] | None = None
    """Standard deviation of fresh projections into the residual stream, as a share of `initializer_range`; null takes
    1 / sqrt(2 layers), 0 begins with blocks that do nothing."""
    router_aux_loss_coef: Annotated[float, Range(0, 100)] = 0.01
    """Weight of the loss that balances the experts."""
    router_z_loss_coef: Annotated[float, Range(0, 100)] = 0.001
    """Weight of the loss that keeps router logits small."""

    def __post_init__(self) -> None:
        require(field_problems(self), "ModelConfig")
        problems = []
        if self.num_attention_heads % self.num_key_value_heads:
            problems.append(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        problems += self._router_problems()
        if self.head_dim % 2:
            problems.append(f"head_dim ({self.head_dim}) must be even, rotary embedding turns pairs")
        if self.moe_intermediate_size % 8 or self.hidden_size % 8:
            problems.append(
                f"hidden_size ({self.hidden_size}) and moe_intermediate_size ({self.moe_intermediate_size}) "
                "must be multiples of 8, grouped matrix products need aligned rows"
            )
        require(problems, "ModelConfig")

    def _router_problems(self) -> list[str]:
        problems, top_k, groups = [], self.num_experts_per_tok, self.num_expert_groups
        if top_k > self.num_experts:
            problems.append(f"num_experts_per_tok ({top_k}) must be at most num_experts ({self.num_experts})")
        if top_k == 1 and self.norm_topk_prob and not (self.dense or self.minimind_compatible):
            problems.append(
                "num_experts_per_tok (1) with norm_topk_prob makes every weight the constant 1, and the router would "
                "never learn from text; take 2 experts, or norm_topk_prob: false, or set minimind_compatible: true"
            )
        if self.num_experts % groups:
            problems.append(f"num_experts ({self.num_experts}) must be a multiple of num_expert_groups ({groups})")
        elif self.num_groups_per_tok > groups or self.num_groups_per_tok * self.num_experts < top_k * groups:
            problems.append(
                f"num_groups_per_tok ({self.num_groups_per_tok}) must be at most num_expert_groups ({groups}) "
                f"and hold num_experts_per_tok ({top_k}) experts"
            )
        return problems

    @property
    def active_intermediate_size(self) -> int:
        """Width of all feed-forward units that one token passes."""
        return (self.num_experts_per_tok + self.num_shared_experts) * self.moe_intermediate_size

    def _parameters(self, experts: int) -> int:
        attention = self.hidden_size * self.head_dim * (2 * self.num_attention_heads + 2 * self.num_key_value_heads)
        norms = 2 * self.hidden_size + 2 * self.head_dim
        router = 0 if self.dense else self.num_experts * self.hidden_size
        expert = 3 * self.hidden_size * self.moe_intermediate_size
        layer = attention + norms + router + (experts + self.num_shared_experts) * expert
        return self.num_hidden_layers * layer + self.hidden_size + self.vocab_size * self.hidden_size

    @property
    def total_parameters(self) -> int:
        """All parameters; a table that is embedding and head counts once."""
        own_head = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        return self._parameters(self.num_experts_per_tok if self.dense else self.num_experts) + own_head

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes through: the output head, and of an embedding of its own nothing."""
        return self._parameters(self.num_experts_per_tok)

    def train_flops_per_token(self, sequence_length_tokens: int) -> float:
        """FLOPs of forward and backward for one token: 6 per active weight, plus causal attention.

        The embedding look-up costs nothing but the output head does, so one table counts.
        Source: the appendix of PaLM (arXiv 2204.02311), with half the score matrix for causal attention.
        """
        attention = 6 * self.num_hidden_layers * self.num_attention_heads * self.head_dim * sequence_length_tokens
        return 6.0 * self.active_parameters + attention
