"""The transformer: pre-norm blocks of attention and experts, embeddings, all initialisation in one place.

Shapes: B = rows, T = tokens of a row, D = hidden size, V = vocabulary.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model.config.network import ModelConfig
from model.experts.mixture import SparseMoE, feed_forward
from model.experts.router import Routing
from model.network.layers import Attention, LayerCache, RMSNorm, rotary_tables, segment_mask, segment_positions

if TYPE_CHECKING:
    from model.network.cache import KeyValueCache


class Block(nn.Module):
    """One layer; parameter names are those of Hugging Face's `Qwen3MoeDecoderLayer`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = feed_forward(config)

    def forward(
        self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, cache: LayerCache | None = None
    ) -> tuple[Tensor, Routing | None]:
        """(B, T, D) → (B, T, D), and the routing of a mixture; the other arguments as in `Attention.forward`."""
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotary, mask, cache)
        normed_BTD = self.post_attention_layernorm(x_BTD)
        if not isinstance(self.mlp, SparseMoE):
            return x_BTD + self.mlp(normed_BTD), None
        mixed_BTD, routing = self.mlp(normed_BTD)
        return x_BTD + mixed_BTD, routing


class Transformer(nn.Module):
    """A decoder-only language model that exports as `Qwen3MoeForCausalLM`."""

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.blocks_compiled = False
        """Whether `compile_blocks` was called."""
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        tied = config.tie_word_embeddings
        self.lm_head = None if tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.initialise(seed)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Normal(0, initializer_range), but where the configuration has another range for it.

        Each parameter's numbers come from the seed and its name, so that a model and its dense twin start alike
        wherever they are alike.
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
                parameter.normal_(0.0, self._initial_std(name), generator=generator)

    def _initial_std(self, name: str) -> float:
        """Of a weight by its name. What writes into the residual stream begins smaller, by default by as much as keeps
        the stream's size over the layers (GPT-2, Radford et al. 2019)."""
        config, std = self.config, self.config.initializer_range
        if name == "embed_tokens.weight":
            return config.embedding_initializer_range or std
        if name.removesuffix(".weight").endswith(("o_proj", "down_proj")):
            share = config.residual_initializer_share
            return std * (1 / math.sqrt(2 * config.num_hidden_layers) if share is None else share)
        return std

    def hidden(
        self, ids_BT: Tensor, segment_BT: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """Final hidden states (B, T, D) and each layer's routing; a dense model has none.

        `segment_BT` numbers the packed documents of a row; without it a row is one document. Positions restart
        and attention stops at every change of segment. An empty `cache` is filled with what is read; with one that
        is not, each row's ids continue it, and `segment_BT` is ignored.
        """
        if cache is not None and cache.length:
            rotary, mask = cache.rotary_and_bias(ids_BT.shape[1])
        else:
            if segment_BT is None:
                segment_BT = torch.zeros_like(ids_BT)
            if cache is not None:
                cache.begin(segment_BT)
            rotary = rotary_tables(segment_positions(segment_BT), self.config.head_dim, self.config.rope_theta)
            mask = segment_mask(segment_BT)
        x_BTD = self.embed_tokens(ids_BT)
        routing: list[Routing] = []
        for number, block in enumerate(self.layers):
            x_BTD, layer_routing = block(x_BTD, rotary, mask, cache.layers[number] if cache is not None else None)
            if layer_routing is not None:
                routing.append(layer_routing)
        return self.norm(x_BTD), routing

    @property
    def head(self) -> Tensor:
        """Weight (V, D) of the output head."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary."""
        return nn.functional.linear(hidden, self.head)

    def forward(self, ids_BT: Tensor, segment_BT: Tensor | None = None) -> Tensor:
        """Logits (B, T, V)."""
        hidden_BTD, _ = self.hidden(ids_BT, segment_BT)
        return self.logits(hidden_BTD)


def compile_blocks(model: Transformer) -> None:
    """Compile each block at its first training step. Evaluation runs them eagerly, see `evaluating`."""
    for block in model.layers:
        block.compile(dynamic=False)
    model.blocks_compiled = True
