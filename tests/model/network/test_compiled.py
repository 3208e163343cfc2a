from __future__ import annotations

import pytest
import torch

from model.config.training import TrainConfig
from model.network.transformer import compile_blocks
from model.training.batches import Batch
from model.training.scoring import evaluating
from model.training.state import TrainState
from model.training.trainer import train_step
from tests.model.tiny import tiny_config

CONFIG = TrainConfig(batch_rows=2, micro_batch_rows=2)


def state() -> TrainState:
    return TrainState.create(tiny_config(num_hidden_layers=1), CONFIG)


def batch() -> Batch:
    ids = torch.randint(0, 300, (2, 32), generator=torch.Generator().manual_seed(0))
    return Batch(ids, ids, torch.ones_like(ids))


def num_graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.slow
def test_compiled_blocks_compute_the_same_and_keep_their_names() -> None:
    plain, compiled = state(), state()
    compile_blocks(compiled.model)
    before = num_graphs()
    for _ in range(2):
        expected, actual = (train_step(s, batch(), CONFIG, num_steps=10) for s in (plain, compiled))
        assert actual.loss == pytest.approx(expected.loss, rel=1e-3), "bf16 rounds elsewhere where kernels are fused"
        assert actual.grad_norm == pytest.approx(expected.grad_norm, rel=2e-2)
        assert actual.counts_LE.sum() == expected.counts_LE.sum()
    assert num_graphs() > before
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()


def test_evaluation_compiles_nothing() -> None:
    compiled = state()
    compile_blocks(compiled.model)
    before = num_graphs()
    for length in (8, 16, 24):
        with evaluating(compiled.model):
            compiled.model(batch().ids_BT[:, :length])
    assert num_graphs() == before


def test_evaluation_without_compiled_blocks_does_not_wait_for_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_for_seconds(stance: str) -> None:
        raise AssertionError(stance)

    monkeypatch.setattr(torch.compiler, "set_stance", import_for_seconds)
    plain = state()
    with evaluating(plain.model):
        plain.model(batch().ids_BT)
