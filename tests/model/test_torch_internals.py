"""What is not public in PyTorch may be gone, fail or be wrong: results are the same without it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from model.config.network import ModelConfig
from model.config.sampling import Sampling
from model.generation.generate import generate
from model.network.transformer import Transformer
from model.torch_internals import PackedLinear, gloo_group, packing_works
from tests.model.tiny import tiny_config

PATIENCE = timedelta(seconds=60)
PACKAGE = Path(__file__).resolve().parents[2] / "model"


def fails(*_: object) -> Tensor:
    raise RuntimeError("Didn't find engine for operation")


def weights(weight_OI: Tensor, rows: int) -> Tensor:
    return weight_OI


def wrong(x_MI: Tensor, packed_OI: Tensor, *_: object) -> Tensor:
    return F.linear(x_MI, packed_OI) + 1


def supported() -> bool:
    return True


WITHOUT: dict[str, Any] = {
    "gone": SimpleNamespace(),
    "failing": SimpleNamespace(_reorder_linear_weight=fails, _is_mkldnn_bf16_supported=supported),
    "called otherwise": SimpleNamespace(_reorder_linear_weight=supported, _is_mkldnn_bf16_supported=supported),
    "wrong": SimpleNamespace(
        _reorder_linear_weight=weights, _linear_pointwise=wrong, _is_mkldnn_bf16_supported=supported
    ),
}


@pytest.fixture(autouse=True)
def tried_anew() -> Iterator[None]:
    packing_works.cache_clear()
    yield
    packing_works.cache_clear()


@pytest.fixture(params=WITHOUT)
def without(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", WITHOUT[request.param])


def products(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """By packed weights, twice, and by plain ones."""
    generator = torch.Generator().manual_seed(1)
    x_MI, weight_OI = (torch.randn(size, 24, generator=generator).to(dtype) for size in (16, 40))
    linear = PackedLinear(weight_OI)
    linear(x_MI)
    return linear(x_MI), F.linear(x_MI, weight_OI)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_packed_weights_give_the_linear_product(dtype: torch.dtype) -> None:
    product, expected = products(dtype)
    rounding = 0.02 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(product, expected, atol=5 * rounding, rtol=rounding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.usefixtures("without")
def test_without_the_operators_the_product_is_the_linear_one(dtype: torch.dtype) -> None:
    product, expected = products(dtype)
    assert torch.equal(product, expected)
    assert not packing_works(dtype)


def test_without_the_operators_a_model_writes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    config: ModelConfig = tiny_config()
    prompts = [[5 + row, 7, 9 + row] for row in range(12)]  # more rows than plain weights are used for
    settings = Sampling(max_new_tokens=6, temperature=0)
    packed = generate(Transformer(config, seed=2), prompts, settings)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    packing_works.cache_clear()
    assert generate(Transformer(config, seed=2), prompts, settings) == packed


def test_a_product_is_tried_once_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    first = packing_works(torch.float32)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert packing_works(torch.float32) is first


@pytest.mark.parametrize("private", [True, False])
def test_gloo_sums_with_and_without_its_private_options(private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options gloo is led to the loopback interface by its variable."""
    if not private:
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
        gloo: Any = dist.ProcessGroupGloo
        monkeypatch.setattr(dist, "ProcessGroupGloo", lambda *arguments: gloo(*arguments))
    store = dist.HashStore()

    def on_rank(rank: int) -> float:
        group, tensor = gloo_group(store, rank, 2, PATIENCE), torch.tensor([1.0 + rank])
        group.allreduce([tensor]).wait()
        return float(tensor)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(on_rank, range(2))) == [3.0, 3.0]


def test_no_other_module_uses_what_is_private() -> None:
    def private(node: ast.AST) -> bool:
        if not isinstance(node, ast.Attribute):
            return False
        owner = ast.unparse(node.value)
        hidden = node.attr.startswith("_") and not node.attr.startswith("__") and owner not in ("self", "cls")
        return hidden or f"{owner}.{node.attr}" == "torch.ops"

    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    users = [path.name for path, tree in trees.items() if any(map(private, ast.walk(tree)))]
    assert users == ["torch_internals.py"]
