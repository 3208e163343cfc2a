"""Bytes of memory that a training stage is planned to need."""

from __future__ import annotations

from model.config.network import ModelConfig
from model.config.training import Precision, TrainConfig
from model.network.layers import CPU_QUERY_CHUNK
from model.precision import product_dtype
from model.training.cross_entropy import CHUNK_TOKENS
from tasks.planning.machine import best_device

BYTES_PER_PARAMETER = 16
"""fp32 weight and gradient, two moments of AdamW."""
BYTES_PER_CHECKPOINTED_PARAMETER = 12
"""Without the gradient; what a change of experts holds of both models."""
FIRST_STEP_BYTES = 270_000_000
"""Of main memory, taken by libraries and the allocator in the first steps of a process; see docs/log.md."""
HELD_BEFORE_BYTES = 2 << 30
"""Held by libraries and data stages in one process before anything is trained; measured with the built-in text."""


def kept_bytes_per_token(model: ModelConfig, row_length_tokens: int, precision: Precision) -> int:
    """What the forward pass keeps of a token for the backward pass, in rows of `row_length_tokens` slots on a
    CPU.

    Per layer five hidden vectors in fp32, and in the type of products two and two more for each choice of an expert;
    heads in fp32 twice and once more as they are used; attention weights up to the end of a chunk of queries; and four
    vectors of the width of all the feed-forward units that the token passes.
    """
    size = product_dtype(precision, best_device()).itemsize
    heads = model.head_dim * (model.num_attention_heads + model.num_key_value_heads) * (8 + size)
    heads += size * model.head_dim * model.num_key_value_heads
    weights = size * model.num_attention_heads * (row_length_tokens + CPU_QUERY_CHUNK) // 2
    choices = 0 if model.dense else model.num_experts_per_tok
    hidden = model.hidden_size * (5 * 4 + size * (2 + 2 * choices))
    return model.num_hidden_layers * (hidden + heads + weights + 4 * size * model.active_intermediate_size)


def activation_bytes(model: ModelConfig, config: TrainConfig, row_length_tokens: int) -> int:
    """Memory of one micro-batch on one rank, beside weights, gradients and moments.

    It is what the forward pass keeps of the tokens, the weights as bf16 if products are in it, the output head's
    gradient three times over, and one chunk of logits with its probabilities.
    """
    slots, table = config.micro_batch_rows * row_length_tokens, model.vocab_size * model.hidden_size
    size = product_dtype(config.precision, best_device()).itemsize
    copies = size * (model.total_parameters - table) if size < 4 else 0
    head = 3 * 4 * table + 8 * min(slots, CHUNK_TOKENS) * model.vocab_size
    return slots * kept_bytes_per_token(model, row_length_tokens, config.precision) + copies + head
