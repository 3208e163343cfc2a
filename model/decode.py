"""Reading prompts and then token by token, with modules that suit few rows.

Shapes: B = rows, T = tokens of a prompt, V = vocabulary; M = rows of a product, I = inputs, O = outputs; N = tokens,
D = hidden size, F = expert width; H = query heads, J = query and key heads, C = head dim. K is key/value heads in
attention and experts per token behind it.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.cache import KeyValueCache
from model.layers import Attention, LayerCache, RMSNorm, rotate
from model.moe import RoutedExperts
from model.transformer import Transformer

FEW_ROWS = 32
"""Up to this many rows `few_rows_product` is the faster one, measured with one and two threads."""


def few_rows_product(x_MI: Tensor, weight_OI: Tensor) -> Tensor:
    """`x` times the weights, (M, O), as `linear` gives it up to rounding.

    On a CPU the library's kernel for few rows and transposed weights reads the weights many times slower than memory
    could give them. With the weights as the left factor it does not; and for one row the product of a batch of two
    halves takes a better kernel than that of one whole.
    """
    rows, outputs = len(x_MI), len(weight_OI)
    if rows > FEW_ROWS or x_MI.device.type != "cpu" or (rows == 1 and outputs % 2):
        return F.linear(x_MI, weight_OI)
    if rows > 1:
        return (weight_OI @ x_MI.T).T
    # The strides say that `x` is a column. PyTorch would also take it for a row, which leads to the slow kernel again.
    x_2I1 = x_MI.contiguous().as_strided((2, x_MI.shape[1], 1), (0, 1, x_MI.shape[1]))
    return torch.bmm(weight_OI.view(2, outputs // 2, -1), x_2I1).view(1, outputs)


class FewRowsLinear(nn.Module):
    """A linear layer's weights with the product above; inputs (B, T, I)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight

    def forward(self, x_BTI: Tensor) -> Tensor:
        return few_rows_product(x_BTI.flatten(0, 1), self.weight).unflatten(0, x_BTI.shape[:2])


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


class FewRowsAttention(nn.Module):
    """`Attention` that goes on from a cache: one product, one norm and one rotation for queries, keys and values.

    Copies the three projections into one.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.head_dim = attention.head_dim
        projections = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        self.queries, self.keys, _ = (len(weight) // self.head_dim for weight in projections)
        self.qkv_proj = torch.cat(projections).detach()
        weights = [attention.q_norm.weight.expand(self.queries, -1), attention.k_norm.weight.expand(self.keys, -1)]
        self.norm_JC = FewRowsNorm(torch.cat(weights), attention.q_norm.eps)
        self.o_proj = FewRowsLinear(attention.o_proj)

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_B1TS: Tensor, cache: LayerCache) -> Tensor:
        projected = few_rows_product(x_BTD.flatten(0, 1), self.qkv_proj).contiguous()
        heads_BTJC = projected.view(*x_BTD.shape[:2], -1, self.head_dim)
        turned = self.queries + self.keys
        qk_BJTC = rotate(self.norm_JC(heads_BTJC[:, :, :turned]).transpose(1, 2), *rotary)
        k_BKSC, v_BKSC = cache.extend(qk_BJTC[:, self.queries :], heads_BTJC[:, :, turned:].transpose(1, 2))
        mixed_BHTC = F.scaled_dot_product_attention(
            qk_BJTC[:, : self.queries], k_BKSC, v_BKSC, attn_mask=mask_B1TS, enable_gqa=True
        )
        return self.o_proj(mixed_BHTC.transpose(1, 2).flatten(2))


class FewTokensExperts(nn.Module):
    """Routed experts one after the other, of which only the chosen are read; no weight is copied."""

    def __init__(self, experts: RoutedExperts) -> None:
        super().__init__()
        self.gate_up_2FD = experts.gate_up_proj.detach().unbind()
        self.down_DF = experts.down_proj.detach().unbind()

    def forward(self, x_ND: Tensor, weights_NK: Tensor, experts_NK: Tensor) -> Tensor:
        tokens, top_k = experts_NK.shape
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

        def product(x_MI: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
            parts = zip(x_MI.split(sizes), experts, strict=True)
            return torch.cat([few_rows_product(part_MI, weights[expert]) for part_MI, expert in parts])

        gate_MF, up_MF = product(x_MD, self.gate_up_2FD).chunk(2, dim=-1)
        return product(F.silu(gate_MF) * up_MF, self.down_DF)


def few_rows_twin(model: Transformer) -> Transformer:
    """The same model, parameters and all, with the modules above in place of those for many rows.

    An accelerator keeps its experts: there the sorted, grouped product needs no word from the CPU.
    """
    shared = [*model.parameters(), *model.buffers()]
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    on_cpu = model.embed_tokens.weight.device.type == "cpu"
    for name, module in list(twin.named_modules()):
        if isinstance(module, Attention):
            twin.set_submodule(name, FewRowsAttention(module))
    for name, module in list(twin.named_modules()):
        if isinstance(module, nn.Linear):
            twin.set_submodule(name, FewRowsLinear(module))
        elif isinstance(module, RMSNorm):
            twin.set_submodule(name, FewRowsNorm(module.weight, module.eps))
        elif isinstance(module, RoutedExperts) and on_cpu:
            twin.set_submodule(name, FewTokensExperts(module))
    return twin


class Decoder:
    """A batch that is being read: the scores of every row's next token, given the prompts and then one token a row.

    Prompts go through the model itself, the tokens after them through its twin for few rows.
    """

    def __init__(self, model: Transformer, capacity_tokens: int) -> None:
        self.model = model
        self.twin = few_rows_twin(model)
        self.cache = KeyValueCache(model.config, capacity_tokens)

    def read(self, ids_BT: Tensor, segment_BT: Tensor) -> Tensor:
        """Scores (B, V) after the prompts, once and first; segments as in `Transformer.hidden`."""
        hidden_BTD, _ = self.model.hidden(ids_BT, segment_BT, self.cache)
        return self.logits(hidden_BTD)

    def step(self, token_B: Tensor) -> Tensor:
        """Scores (B, V) after one more token of each row."""
        hidden_BTD, _ = self.twin.hidden(token_B[:, None], cache=self.cache)
        return self.logits(hidden_BTD)

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        return few_rows_product(hidden_BTD[:, -1], self.model.embed_tokens.weight).float()

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these, by number."""
        self.cache.keep(rows)
