"""The dense switch: the same model but for what stands behind attention."""

from __future__ import annotations

import pytest
import torch

from model.network.transformer import Transformer
from model.training.state import TrainState
from model.training.trainer import train
from tests.model.tiny import packed_rows, tiny_config, tiny_training
from tests.reference.moe import swiglu


@pytest.mark.parametrize("shared", [0, 1])
def test_a_dense_twin_differs_in_the_feed_forward_blocks_alone(shared: int) -> None:
    mixture = Transformer(tiny_config(num_shared_experts=shared), seed=3).state_dict()
    twin = Transformer(tiny_config(num_shared_experts=shared, dense=True), seed=3).state_dict()
    outside = {name for name in mixture if ".mlp." not in name}
    assert outside == {name for name in twin if ".mlp." not in name}
    assert all(torch.equal(mixture[name], twin[name]) for name in outside)
    assert {name.rpartition(".mlp.")[2] for name in twin.keys() - outside} == {
        "gate_proj.weight", "up_proj.weight", "down_proj.weight"
    }  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"num_shared_experts": 2}, {"num_experts": 8, "num_experts_per_tok": 3}])
def test_a_twin_has_the_active_parameters_of_the_mixture_but_its_routers(changes: dict[str, int]) -> None:
    config = tiny_config(**changes)
    twin = tiny_config(**changes, dense=True)
    counted = sum(parameter.numel() for parameter in Transformer(twin).parameters())
    routers = config.num_hidden_layers * config.num_experts * config.hidden_size
    assert counted == twin.total_parameters == twin.active_parameters == config.active_parameters - routers


def test_the_dense_block_is_one_swiglu() -> None:
    block = Transformer(tiny_config(dense=True)).layers[0].mlp
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    gate_up = torch.cat([block.gate_proj.weight, block.up_proj.weight])
    expected = torch.stack([swiglu(row, gate_up, block.down_proj.weight) for row in x])
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dense", [True, False])
def test_training_says_of_experts_only_where_there_are_some(dense: bool) -> None:
    config = tiny_training()
    steps = list(train(TrainState.create(tiny_config(dense=dense), config), packed_rows(), config))
    assert len(steps) == 6
    assert steps[-1].loss < steps[0].loss
    assert any(name.startswith("moe/") for name in steps[-1].as_metrics()) != dense
    assert (steps[-1].balance_loss == 0) == dense
