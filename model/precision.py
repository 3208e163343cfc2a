"""Which type products are computed in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

CPU_UNITS = ("amx_bf16", "bf16")
"""PyTorch's names for units of x86 and of ARM that multiply matrices in bf16. AVX-512's instructions for bf16 are none:
training takes 1.4 times as long with them as in fp32; see docs/log.md."""


def product_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of products on a device; with "auto" bf16, or fp32 on a CPU without units for bf16.

    A fact of the device, not a measurement, so that a run that is repeated or resumed computes alike.
    """
    if precision == "auto":
        capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        has_units = device.type != "cpu" or any(capabilities.get(unit, False) for unit in CPU_UNITS)
        return torch.bfloat16 if has_units else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type autocast would use for `x`; grouped products are not on autocast's list, so callers cast for them."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Autocast to bf16 where products are to be in it, on any device; nothing changes where they are to be in fp32."""
    if product_dtype(precision, device) == torch.bfloat16:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
