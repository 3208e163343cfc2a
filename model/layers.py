"""RMSNorm, rotary embedding and grouped-query attention with per-head QK-norm, as Qwen3 has them.

Shapes: B = rows, T = tokens of a row, D = hidden size, H = query heads, K = key/value heads, C = head dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig


class RMSNorm(nn.Module):
    """Root-mean-square norm (arXiv 1910.07467), computed in fp32 and returned in the input's type."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(x.dtype)


def rotary_tables(position_BT: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's angles, fp32, shaped (B, 1, T, C); halves repeat as in Hugging Face."""
    exponent = torch.arange(0, head_dim, 2, device=position_BT.device, dtype=torch.float32) / head_dim
    angle_BTc = position_BT[..., None].float() / theta**exponent
    angle_BTC = torch.cat([angle_BTc, angle_BTc], dim=-1)
    return angle_BTC.cos()[:, None], angle_BTC.sin()[:, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864) on (B, heads, T, C)."""
    left, right = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat([-right, left], dim=-1) * sin.to(x.dtype)


def segment_positions(segment_BT: Tensor) -> Tensor:
    """Position of each token inside its own segment, starting at 0: (B, T) → (B, T)."""
    index_T = torch.arange(segment_BT.shape[1], device=segment_BT.device)
    starts_BT = torch.ones_like(segment_BT, dtype=torch.bool)
    starts_BT[:, 1:] = segment_BT[:, 1:] != segment_BT[:, :-1]
    start_BT = torch.where(starts_BT, index_T, 0).cummax(dim=1).values
    return index_T - start_BT


def segment_mask(segment_BT: Tensor) -> Tensor:
    """Causal mask that keeps packed documents apart: (B, T) → (B, 1, T, T), True where attention may look."""
    same_BTT = segment_BT[:, :, None] == segment_BT[:, None, :]
    return same_BTT.tril()[:, None]


CPU_QUERY_CHUNK = 128
"""Queries per matrix product on CPU; 64 to 256 were within 5 % of each other, see docs/log.md."""


def attend(q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, mask_B1TT: Tensor) -> Tensor:
    """Masked attention, softmax in fp32: PyTorch's fused kernel on an accelerator, chunks of queries on CPU.

    The fused kernel is the slower one on CPU, forward and backward; a chunk also never looks past its own end,
    which saves the upper half of the score matrix.
    """
    if q_BHTC.device.type != "cpu":
        return F.scaled_dot_product_attention(q_BHTC, k_BHTC, v_BHTC, attn_mask=mask_B1TT)
    chunks = []
    for start in range(0, q_BHTC.shape[2], CPU_QUERY_CHUNK):
        end = min(start + CPU_QUERY_CHUNK, q_BHTC.shape[2])
        scores = q_BHTC[:, :, start:end] @ k_BHTC[:, :, :end].transpose(-1, -2) * q_BHTC.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask_B1TT[:, :, start:end, :end], float("-inf"))
        chunks.append(scores.softmax(dim=-1, dtype=torch.float32).to(v_BHTC.dtype) @ v_BHTC[:, :, :end])
    return torch.cat(chunks, dim=2)


class Attention(nn.Module):
    """Grouped-query attention; parameter names are Hugging Face's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        query, key_value = config.num_attention_heads, config.num_key_value_heads
        self.queries_per_key = query // key_value
        self.q_proj = nn.Linear(config.hidden_size, query * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_value * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_value * self.head_dim, bias=False)
        self.o_proj = nn.Linear(query * self.head_dim, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_B1TT: Tensor) -> Tensor:
        rows, tokens, _ = x_BTD.shape

        def heads(projected: Tensor) -> Tensor:
            return projected.view(rows, tokens, -1, self.head_dim)

        q_BHTC = rotate(self.q_norm(heads(self.q_proj(x_BTD))).transpose(1, 2), *rotary)
        k_BKTC = rotate(self.k_norm(heads(self.k_proj(x_BTD))).transpose(1, 2), *rotary)
        v_BKTC = heads(self.v_proj(x_BTD)).transpose(1, 2)
        k_BHTC = k_BKTC.repeat_interleave(self.queries_per_key, dim=1)
        v_BHTC = v_BKTC.repeat_interleave(self.queries_per_key, dim=1)
        mixed_BHTC = attend(q_BHTC, k_BHTC, v_BHTC, mask_B1TT)
        return self.o_proj(mixed_BHTC.transpose(1, 2).reshape(rows, tokens, -1))
