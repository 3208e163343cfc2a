"""Which type products are computed in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type autocast would use for `x`; grouped products are not on autocast's list, so callers cast for them."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Autocast to bf16 where `precision` is "bf16", on any device, CPU included; with "fp32" nothing changes."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
