"""The modules of a model that is read one token at a time: the same results, from what is faster for few rows.

Shapes: B = rows, T = tokens read at once, M = rows of a product, I = inputs, O = outputs; N = tokens, D = hidden size,
E = experts, F = their width; H = query heads, G = those of one key head, J = query and key heads, C = head dim,
S = slots of the cache. K is key/value heads in attention and experts per token in the experts.
"""

from __future__ import annotations

import functools
from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.experts.mixture import RoutedExperts
from model.network.layers import Attention, LayerCache, rotate
from model.torch_internals import PackedLinear

FEW_ROWS = 32
"""Up to this many rows a product takes about as long as reading its weights."""

PLAIN_ROWS = 8
"""Up to this many rows of fp32, plain weights as the left factor are as fast as packed ones."""


class FewRowsProduct:
    """Rows times fixed weights: (M, I) → (M, O), as `linear` gives it up to rounding.

    On a CPU PyTorch's kernels for few rows read plain weights several times slower than memory could give them. Packed
    ones they read at full speed, for a copy of the weights. Up to `PLAIN_ROWS` rows of fp32 need no copy: one row is
    multiplied as a batch of two halves, several from the right, and both ways take a better kernel.
    """

    def __init__(self, weight_OI: Tensor) -> None:
        self.weight_OI = weight_OI.detach()
        self.packed = PackedLinear(self.weight_OI)

    def __call__(self, x_MI: Tensor) -> Tensor:
        outputs, inputs = self.weight_OI.shape
        if self.weight_OI.device.type == "cpu" and x_MI.dtype == torch.float32:
            if len(x_MI) == 1 and outputs % 2 == 0:
                # The strides say that `x` is a column: taken for a row, it would lead to the slow kernel.
                x_2I1 = x_MI.contiguous().as_strided((2, inputs, 1), (0, 1, inputs))
                return torch.bmm(self.weight_OI.view(2, outputs // 2, -1), x_2I1).view(1, outputs)
            if 1 < len(x_MI) <= PLAIN_ROWS:
                return (self.weight_OI @ x_MI.T).T
        return self.packed(x_MI)


class FewRowsLinear(nn.Module):
    """A linear layer with the product above; inputs (B, T, I)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.product = FewRowsProduct(linear.weight)

    def forward(self, x_BTI: Tensor) -> Tensor:
        return self.product(x_BTI.flatten(0, 1)).unflatten(0, x_BTI.shape[:2])


class FewRowsNorm(nn.Module):
    """RMSNorm as x / hypot(|x|, sqrt(C eps)) times sqrt(C) weight: three kernels, where PyTorch runs eight on a CPU.

    `weight` is (C,) or has one row for each head, (heads, C).
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        size = weight.shape[-1]
        self.scale = weight.detach().float() * size**0.5
        self.floor = torch.tensor((size * eps) ** 0.5, device=weight.device)

    def forward(self, x: Tensor) -> Tensor:
        x_fp32 = x.float()
        length = torch.linalg.vector_norm(x_fp32, dim=-1, keepdim=True)
        return (x_fp32 / length.hypot(self.floor) * self.scale).to(x.dtype)


def attend_with_one(q_BHTC: Tensor, k_BKSC: Tensor, v_BKSC: Tensor, bias_B1TS: Tensor) -> Tensor:
    """Attention of a single query a row, (B, H, 1, C), over keys and values (B, K, S, C) → (B, H, 1, C).

    `bias_B1TS`, T = 1, is added to the scores. On a CPU PyTorch's fused kernel is slow with anything but fp32.
    """
    if q_BHTC.device.type != "cpu" or q_BHTC.dtype == torch.float32:
        return F.scaled_dot_product_attention(q_BHTC, k_BKSC, v_BKSC, attn_mask=bias_B1TS, enable_gqa=True)
    rows, heads, _, size = q_BHTC.shape
    q_BKGC = (q_BHTC * size**-0.5).reshape(rows, k_BKSC.shape[1], -1, size)
    weights_BKGS = (q_BKGC @ k_BKSC.mT + bias_B1TS).softmax(dim=-1)
    return (weights_BKGS @ v_BKSC).view(rows, heads, 1, size)


class FewRowsAttention(nn.Module):
    """`Attention` that goes on from a cache: one product, one norm and one rotation for queries, keys and values.

    Copies the three projections into one.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.head_dim = attention.head_dim
        projections = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        self.queries, self.keys, _ = (len(weight) // self.head_dim for weight in projections)
        self.qkv_proj = FewRowsProduct(torch.cat(projections))
        weights = [attention.q_norm.weight.expand(self.queries, -1), attention.k_norm.weight.expand(self.keys, -1)]
        self.norm_JC = FewRowsNorm(torch.cat(weights), attention.q_norm.eps)
        self.o_proj = FewRowsLinear(attention.o_proj)

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], bias_B1TS: Tensor, cache: LayerCache) -> Tensor:
        """(B, 1, D) → (B, 1, D); the other arguments as in `Attention.forward` with a cache that holds tokens."""
        projected = self.qkv_proj(x_BTD.flatten(0, 1)).contiguous()
        heads_BTJC = projected.view(*x_BTD.shape[:2], -1, self.head_dim)
        turned = self.queries + self.keys
        qk_BJTC = rotate(self.norm_JC(heads_BTJC[:, :, :turned]).transpose(1, 2), *rotary)
        k_BKSC, v_BKSC = cache.extend(qk_BJTC[:, self.queries :], heads_BTJC[:, :, turned:].transpose(1, 2))
        mixed_BHTC = attend_with_one(qk_BJTC[:, : self.queries], k_BKSC, v_BKSC, bias_B1TS.type_as(qk_BJTC))
        return self.o_proj(mixed_BHTC.transpose(1, 2).flatten(2))


class FewTokensExperts(nn.Module):
    """Routed experts for few tokens: the chosen ones one after the other, or all of them at once.

    When about every expert is chosen by some token, all weights are read anyway. All experts for all tokens are two
    large products, with a share of 0 for those not chosen; more arithmetic, but in less time than many small products.
    It costs copies of the experts' weights, made when they are first needed.
    """

    def __init__(self, experts: RoutedExperts) -> None:
        super().__init__()
        self.gate_up_E2FD, self.down_EDF = experts.gate_up_proj.detach(), experts.down_proj.detach()
        self.gate_up_2FD = [FewRowsProduct(weight_2FD) for weight_2FD in self.gate_up_E2FD]
        self.down_DF = [FewRowsProduct(weight_DF) for weight_DF in self.down_EDF]

    def forward(self, x_ND: Tensor, weights_NK: Tensor, experts_NK: Tensor) -> Tensor:
        tokens, top_k = experts_NK.shape
        if tokens <= FEW_ROWS and tokens * top_k >= 2 * len(self.down_DF):
            return self.all_experts(x_ND, weights_NK, experts_NK)
        if tokens == 1:
            back_NKD = self.swiglu(x_ND.expand(top_k, -1), experts_NK[0].tolist(), [1] * top_k)[None]
        else:
            chosen_M, order_M = experts_NK.flatten().sort(stable=True)
            load = Counter(chosen_M.tolist())  # keeps the order of the experts
            out_MD = self.swiglu(x_ND[order_M // top_k], list(load), list(load.values()))
            back_NKD = torch.empty_like(out_MD).index_copy_(0, order_M, out_MD).view(tokens, top_k, -1)
        return torch.bmm(weights_NK[:, None].to(back_NKD.dtype), back_NKD)[:, 0].to(x_ND.dtype)

    def swiglu(self, x_MD: Tensor, experts: list[int], sizes: list[int]) -> Tensor:
        """The first `sizes[0]` rows through expert `experts[0]`, and so on."""

        def product(x_MI: Tensor, products: list[FewRowsProduct]) -> Tensor:
            parts = zip(x_MI.split(sizes), experts, strict=True)
            return torch.cat([products[expert](part_MI) for part_MI, expert in parts])

        gate_MF, up_MF = product(x_MD, self.gate_up_2FD).chunk(2, dim=-1)
        return product(F.silu(gate_MF) * up_MF, self.down_DF)

    def all_experts(self, x_ND: Tensor, weights_NK: Tensor, experts_NK: Tensor) -> Tensor:
        """(N, D) → (N, D). The second product also sums over the experts."""
        gate_up, down = self.products_of_all
        gate_NEF, up_NEF = gate_up(x_ND).view(len(x_ND), len(self.down_DF), -1).chunk(2, dim=-1)
        share_NE = x_ND.new_zeros(len(x_ND), len(self.down_DF)).scatter_(1, experts_NK, weights_NK.type_as(x_ND))
        return down((F.silu(gate_NEF) * up_NEF * share_NE[..., None]).flatten(1))

    @functools.cached_property
    def products_of_all(self) -> tuple[FewRowsProduct, FewRowsProduct]:
        """Rows (N, D) to gates and values of all experts, (N, E 2F); from them, (N, E F), to the sum of outputs."""
        return FewRowsProduct(self.gate_up_E2FD.flatten(0, 1)), FewRowsProduct(self.down_EDF.transpose(0, 1).flatten(1))
