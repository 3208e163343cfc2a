"""RMSNorm, rotary embedding and grouped-query attention with per-head QK-norm, as Qwen3 has them.

Shapes: B = rows, T = tokens of a row, D = hidden size, H = query heads, K = key/value heads, C = head dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config.network import ModelConfig

CPU_QUERY_CHUNK = 128
"""Queries per matrix product on CPU; 64 to 256 were within 5 % of each other, see docs/log.md."""


class RMSNorm(nn.Module):
    """Root-mean-square norm (arXiv 1910.07467), computed in fp32 and returned in the input's type."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


def rotary_tables(position_BT: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's angles, fp32, shaped (B, 1, T, C); halves repeat as in Hugging Face."""
    exponent = torch.arange(0, head_dim, 2, device=position_BT.device, dtype=torch.float32) / head_dim
    angle_BTc = position_BT[..., None].float() / theta**exponent
    angle_BTC = torch.cat([angle_BTc, angle_BTc], dim=-1)
    return angle_BTC.cos()[:, None], angle_BTC.sin()[:, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864) on (B, heads, T, C)."""
    half = x.shape[-1] // 2
    left, right, cos, sin = x[..., :half], x[..., half:], cos[..., :half].to(x.dtype), sin[..., :half].to(x.dtype)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def segment_positions(segment_BT: Tensor) -> Tensor:
    """Position of each token inside its own segment, starting at 0: (B, T) → (B, T)."""
    index_T = torch.arange(segment_BT.shape[1], device=segment_BT.device)
    starts_BT = torch.ones_like(segment_BT, dtype=torch.bool)
    starts_BT[:, 1:] = segment_BT[:, 1:] != segment_BT[:, :-1]
    start_BT = torch.where(starts_BT, index_T, 0).cummax(dim=1).values
    return index_T - start_BT


def segment_mask(segment_BT: Tensor) -> Tensor:
    """Causal mask that keeps packed documents apart: (B, T) → (B, 1, T, T), True where attention is allowed."""
    same_BTT = segment_BT[:, :, None] == segment_BT[:, None, :]
    return same_BTT.tril()[:, None]


def attend(q_BHTC: Tensor, k_BKSC: Tensor, v_BKSC: Tensor, mask_B1TS: Tensor) -> Tensor:
    """Masked grouped-query attention: PyTorch's fused kernel on an accelerator, chunks of queries on CPU.

    Queries (B, H, T, C), keys and values (B, K, S, C), a mask that is True where a query may attend → (B, H, T, C). The
    fused kernel is the slower one on CPU, forward and backward. All query heads of a key head make one product with it,
    so keys and values are not copied; a chunk never attends past its own end, which saves the upper half of the score
    matrix. Scores are in the input's type, their sums in fp32.
    """
    if q_BHTC.device.type != "cpu":
        return F.scaled_dot_product_attention(q_BHTC, k_BKSC, v_BKSC, attn_mask=mask_B1TS, enable_gqa=True)
    rows, heads, tokens, size = q_BHTC.shape
    groups = k_BKSC.shape[1]
    q_BHTC = q_BHTC * size**-0.5
    chunks = []
    for start in range(0, tokens, CPU_QUERY_CHUNK):
        end = min(start + CPU_QUERY_CHUNK, tokens)
        q_BKtC = q_BHTC[:, :, start:end].reshape(rows, groups, -1, size)
        hidden = torch.zeros((), dtype=q_BHTC.dtype).masked_fill(~mask_B1TS[:, :, None, start:end, :end], float("-inf"))
        scores_BKGts = (q_BKtC @ k_BKSC[:, :, :end].mT).view(rows, groups, heads // groups, end - start, end) + hidden
        weights_BKts = scores_BKGts.softmax(dim=-1).view(rows, groups, -1, end)
        chunks.append((weights_BKts @ v_BKSC[:, :, :end]).view(rows, heads, end - start, size))
    return torch.cat(chunks, dim=2)


class LayerCache:
    """One layer's keys and values of the tokens already read, each (B, K, capacity, C).

    The memory is allocated with the first tokens, in their type and on their device.
    """

    def __init__(self, capacity_tokens: int) -> None:
        self.capacity_tokens = capacity_tokens
        self.length = 0
        self.k_BKSC = self.v_BKSC = torch.empty(0)

    def extend(self, k_BKTC: Tensor, v_BKTC: Tensor) -> tuple[Tensor, Tensor]:
        """Add the next tokens, which must fit; returns views of all keys and values, (B, K, S, C), S = slots filled."""
        rows, heads, tokens, size = k_BKTC.shape
        end = self.length + tokens
        if not self.length:
            self.k_BKSC = k_BKTC.new_empty(rows, heads, self.capacity_tokens, size)
            self.v_BKSC = torch.empty_like(self.k_BKSC)
        self.k_BKSC[:, :, self.length : end] = k_BKTC
        self.v_BKSC[:, :, self.length : end] = v_BKTC
        self.length = end
        return self.k_BKSC[:, :, :end], self.v_BKSC[:, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.k_BKSC, self.v_BKSC = self.k_BKSC[rows], self.v_BKSC[rows]


class Attention(nn.Module):
    """Grouped-query attention; parameter names are Hugging Face's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        query, key_value = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = nn.Linear(config.hidden_size, query * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_value * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_value * self.head_dim, bias=False)
        self.o_proj = nn.Linear(query * self.head_dim, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)

    def forward(
        self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_B1TS: Tensor, cache: LayerCache | None = None
    ) -> Tensor:
        """(B, T, D) → (B, T, D). With a cache the tokens also attend to those it holds, S in all, and are added to it.

        `rotary` are the `rotary_tables` of the tokens. `mask_B1TS` is True where they may attend; with a cache that
        holds tokens already, it is the bias of `KeyValueCache.rotary_and_bias`, which is added to their scores.
        """
        rows, tokens, _ = x_BTD.shape

        def heads(projected: Tensor) -> Tensor:
            return projected.view(rows, tokens, -1, self.head_dim)

        # One product for all three: their input is cast once, and a wider one uses the machine better.
        weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        sizes = [self.q_proj.out_features, self.k_proj.out_features, self.v_proj.out_features]
        query, key, value = F.linear(x_BTD, weight).split(sizes, dim=-1)
        q_BHTC = rotate(self.q_norm(heads(query)).transpose(1, 2), *rotary)
        k_BKSC = rotate(self.k_norm(heads(key)).transpose(1, 2), *rotary)
        v_BKSC = heads(value).transpose(1, 2)
        continues = cache is not None and cache.length > 0
        if cache is not None:
            k_BKSC, v_BKSC = cache.extend(k_BKSC, v_BKSC)
        if continues:
            # For few queries the fused kernel is the faster one on CPU too, and reads each key once for all its heads.
            bias_B1TS = mask_B1TS.type_as(q_BHTC)
            mixed_BHTC = F.scaled_dot_product_attention(q_BHTC, k_BKSC, v_BKSC, attn_mask=bias_B1TS, enable_gqa=True)
        else:
            mixed_BHTC = attend(q_BHTC, k_BKSC, v_BKSC, mask_B1TS)
        return self.o_proj(mixed_BHTC.transpose(1, 2).reshape(rows, tokens, -1))
