"""Checkpoints of MiniMind as our models.

Its transformer is Qwen3's: norms of query and key, rotary embedding by halves, SwiGLU, a softmax over all experts
before the top k are chosen. What differs is refused by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.config.network import ModelConfig
from model.exchange.hugging_face import SHOWN_CHARACTERS, NotImportable, differing, from_hugging_face, refuse
from model.network.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class MiniMindConfig:
    """What a MiniMind checkpoint was trained with: the names and defaults of MiniMind's own configuration.

    A checkpoint does not hold it, and only sizes show in the weights. Source: model_minimind.py of MiniMind,
    August 2026.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 8
    use_moe: bool = False
    vocab_size: int = 6400
    num_attention_heads: int = 8
    num_key_value_heads: int | None = 4
    """None: as many as `num_attention_heads`."""
    head_dim: int | None = None
    """None: hidden_size / num_attention_heads."""
    intermediate_size: int | None = None
    """None: pi times the hidden size, rounded up to a multiple of 64."""
    hidden_act: str = "silu"
    max_position_embeddings: int = 32_768
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    inference_rope_scaling: bool = False
    num_experts: int = 4
    num_experts_per_tok: int = 1
    moe_intermediate_size: int | None = None
    """None: `intermediate_size`."""
    norm_topk_prob: bool = True
    router_aux_loss_coef: float = 5e-4

    def __post_init__(self) -> None:
        computed = {"hidden_act": "silu", "inference_rope_scaling": False}
        refuse(differing(vars(self), computed), Path("MiniMindConfig"))

    @property
    def model(self) -> ModelConfig:
        """The same as ours. MiniMind sums its balance loss over layers and choices, where ours is a mean; it has no
        z-loss.
        """
        top_k = self.num_experts_per_tok if self.use_moe else 1
        dense_width = self.intermediate_size or math.ceil(self.hidden_size * math.pi / 64) * 64
        return ModelConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads or self.num_attention_heads,
            head_dim=self.head_dim or self.hidden_size // self.num_attention_heads,
            num_experts=self.num_experts,
            num_experts_per_tok=top_k,
            moe_intermediate_size=(self.moe_intermediate_size or dense_width) if self.use_moe else dense_width,
            norm_topk_prob=self.norm_topk_prob,
            dense=not self.use_moe,
            minimind_compatible=self.use_moe and self.norm_topk_prob and top_k == 1,
            max_position_embeddings=self.max_position_embeddings,
            rope_theta=self.rope_theta,
            rms_norm_eps=self.rms_norm_eps,
            router_aux_loss_coef=self.router_aux_loss_coef * self.num_hidden_layers * top_k,
            router_z_loss_coef=0.0,
        )


def import_minimind(path: Path, config: MiniMindConfig) -> Transformer:
    """The model of a MiniMind `.pth` file of weights (half precision, as its trainers write it).

    Nothing in the file is run. Raises NotImportable: so for the files of older MiniMinds, with shared experts or
    without norms of query and key, and for `_resume.pth` files, whose weights lie beside them.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise NotImportable(f"{path} cannot be imported: {error.strerror or error}") from error
    except Exception as error:  # on a file of anything else the reader fails with whatever it stumbles over
        reason = " ".join(str(error).split())[:SHOWN_CHARACTERS]
        raise NotImportable(
            f"{path} cannot be imported: it is no file of tensors that torch.save wrote, or holds more ({reason})"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        refuse(["it is not a dictionary of tensors; use the file of weights, without _resume in its name"], path)
    return from_hugging_face(content, config.model, path)
