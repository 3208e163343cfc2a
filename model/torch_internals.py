"""The parts of PyTorch used here that are not public, each with the public call that stands in where it has gone.

All use of `torch.ops` and of names with an underscore lies in this module. A new version of PyTorch may drop or change
them without notice, so none is relied on: packed weights are tried on a small product before their first use, and the
options of gloo are looked up when a group is made.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class PackedLinear:
    """Rows times fixed weights on a CPU, (M, I) → (M, O), as `F.linear` computes it up to rounding.

    oneDNN, PyTorch's library for CPUs, reads weights of its own layout at the speed of memory and plain ones several
    times slower while rows are few. The first product makes a copy of the weights in that layout, as PyTorch's compiler
    does for frozen weights: `mkldnn._reorder_linear_weight` makes it, `mkldnn._linear_pointwise` multiplies with it.
    Where these are missing, fail or are wrong, `F.linear` computes the product and nothing is copied. That takes 1.2 to
    2.2 times as long at 1 to 32 rows of a head of 6,400 by 256 (two cores, weights in the cache), and more from memory.
    """

    def __init__(self, weight_OI: Tensor) -> None:
        self.weight_OI = weight_OI
        self.packed: Tensor | None = None

    def __call__(self, x_MI: Tensor) -> Tensor:
        if self.weight_OI.device.type != "cpu" or not packing_works(self.weight_OI.dtype):
            return F.linear(x_MI, self.weight_OI)
        if self.packed is None:
            self.packed = pack(self.weight_OI, len(x_MI))
        return packed_product(x_MI, self.packed)


def pack(weight_OI: Tensor, rows: int) -> Tensor:
    """A copy of the weights as oneDNN lays them out for products with about so many rows; opaque."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), rows)
    return packed


def packed_product(x_MI: Tensor, packed: Tensor) -> Tensor:
    """(M, I) and `pack` of (O, I) → (M, O), without a bias and with no function applied to the result."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x_MI, packed, None, "none", [], "")
    return product


@functools.cache
def packing_works(dtype: torch.dtype) -> bool:
    """Whether products with packed weights of this type can be had here and are right: tried once, on a small one."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    generator = torch.Generator().manual_seed(0)
    x_MI, weight_OI = (torch.randn(size, 16, generator=generator).to(dtype) for size in (3, 8))
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        product_MO = packed_product(x_MI, pack(weight_OI, len(x_MI)))
    except (AttributeError, RuntimeError, TypeError):  # gone, not built in, or called otherwise
        return False
    expected_MO = F.linear(x_MI, weight_OI)
    return product_MO.shape == expected_MO.shape and torch.allclose(
        product_MO.float(), expected_MO.float(), rtol=0.02, atol=0.1
    )


def gloo_group(store: Any, rank: int, count: int, timeout: timedelta) -> Any:
    """A gloo group of `count` processes that meet through `store`, over the loopback interface.

    `rank`, from 0, is this process; `timeout` is how long one waits for another. Only gloo's private options name an
    interface. Without them gloo takes that of the host's name, which must then resolve to an address of this machine.
    Raises RuntimeError if the others do not come in time.
    """
    gloo: Any = dist.ProcessGroupGloo
    try:
        options = gloo._Options()
        options._devices = [gloo.create_device(hostname="127.0.0.1")]
        options._timeout = timeout
    except AttributeError:
        return gloo(store, rank, count, timeout)
    return gloo(store, rank, count, options)
