from __future__ import annotations

import pytest
import torch

from model.config.training import Precision
from model.precision import autocast, compute_dtype, product_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True, "amx_bf16": False}, torch.float32),
        ({"architecture": "arm64", "bf16": True}, torch.bfloat16),
        ({}, torch.float32),
    ],
)
def test_auto_is_bf16_where_the_cpu_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert product_dtype("auto", CPU) == expected
    assert product_dtype("auto", torch.device("cuda")) == torch.bfloat16
    with autocast(CPU, "auto"):
        assert compute_dtype(torch.zeros(1)) == expected


@pytest.mark.parametrize(("precision", "expected"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_what_is_said_holds_on_every_machine(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, expected: torch.dtype
) -> None:
    for capabilities in ({"amx_bf16": True}, {}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        with autocast(CPU, precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected
