"""Balancing experts in the training loop: by a loss over a step or a micro-batch, and by a bias that fades."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from model.config.training import TrainConfig
from model.experts.router import TopKRouter
from model.network.transformer import Transformer
from model.training import checkpoint
from model.training.batches import Batch
from model.training.state import TrainState
from model.training.trainer import accumulate_gradients, train
from tests.model.tiny import SLOTS, batch_of, packed_rows, tiny_config, tiny_training
from tests.reference.losses import looped_balance_loss


def balance_of(model: Transformer, batch: Batch) -> float:
    """Of one batch alone, term by term."""
    with torch.no_grad():
        _, routing = model.hidden(batch.ids_BT, batch.segment_BT)
    return looped_balance_loss(routing, batch.real_N.tolist(), model.config.num_experts)


@pytest.mark.parametrize("scope", ["step", "micro_batch"])
def test_one_micro_batch_is_the_step(scope: str) -> None:
    model, batch = Transformer(tiny_config()), batch_of(4)
    config = tiny_training(micro_batch_rows=4, balance_scope=scope)
    assert accumulate_gradients(model, batch, config)[1] == pytest.approx(balance_of(model, batch), rel=1e-5)


def test_the_scope_of_a_micro_batch_is_that_micro_batch_weighed_by_its_tokens() -> None:
    model, batch = Transformer(tiny_config()), batch_of(4)
    parts = batch.split(1)
    tokens = [int(part.real_N.sum()) for part in parts]
    expected = sum(n * balance_of(model, part) for n, part in zip(tokens, parts, strict=True)) / sum(tokens)
    actual = {
        scope: accumulate_gradients(model, batch, tiny_training(micro_batch_rows=1, balance_scope=scope))[1]
        for scope in ("step", "micro_batch")
    }
    assert actual["micro_batch"] == pytest.approx(expected, rel=1e-5)
    assert actual["step"] < actual["micro_batch"]


def worst_excess(coefficient: float) -> float:
    """Busiest expert's load over the mean, less one, after 40 steps that began with two experts for all tokens."""
    config = tiny_training(num_tokens=40 * 8 * SLOTS, batch_rows=8, micro_batch_rows=8)
    state = TrainState.create(tiny_config(router_aux_loss_coef=coefficient), config)
    with torch.no_grad():
        state.model.embed_tokens.weight[:, 0] = 1.0
        for block in state.model.layers:
            block.mlp.gate.weight *= 0.1
            block.mlp.gate.weight[:2, 0] = 0.2
    steps = list(train(state, packed_rows(), config))
    first, last = (step.counts_LE / step.counts_LE.mean(axis=1, keepdims=True) - 1 for step in (steps[0], steps[-1]))
    assert first.max() > 0.9
    return float(last.max())


def test_the_balance_loss_evens_a_router_that_had_collapsed() -> None:
    evened, alone = worst_excess(0.5), worst_excess(0.0)
    assert evened < 0.2
    assert evened < alone / 2


def biases(state: TrainState) -> torch.Tensor:
    routers = [module for module in state.model.modules() if isinstance(module, TopKRouter)]
    return torch.stack([router.e_score_correction_bias for router in routers])


def bias_training() -> TrainConfig:
    return tiny_training(num_tokens=10 * 4 * 24, router_bias_rate=0.01, router_bias_fade_share=0.3)


def test_the_bias_moves_by_its_rate_and_is_nothing_after_the_last_step() -> None:
    config = bias_training()
    state = TrainState.create(tiny_config(router_bias=True, router_aux_loss_coef=0.0), config)
    largest = []
    for _ in train(state, packed_rows(), config):
        largest.append(float(biases(state).abs().max()))
    assert 0 < largest[0] <= 0.02
    assert largest[6] > largest[7] > largest[8] > largest[9] == 0
    assert max(largest) == max(largest[:7])


@pytest.mark.parametrize(("share", "steps"), [(0.0, 4), (0.1, 3), (1.0, 3)])
def test_however_few_the_steps_and_small_the_share_nothing_is_left(share: float, steps: int) -> None:
    config = tiny_training(num_tokens=steps * 4 * 24, router_bias_fade_share=share)
    state = TrainState.create(tiny_config(router_bias=True), config)
    assert len(list(train(state, packed_rows(), config))) == steps
    assert not biases(state).any()


def test_a_model_without_a_bias_is_left_alone() -> None:
    config = bias_training()
    state = TrainState.create(tiny_config(), config)
    list(train(state, packed_rows(), config))
    assert not any("bias" in name for name in state.model.state_dict())


def test_a_resumed_run_goes_on_with_the_bias(tmp_path: Path) -> None:
    config, rows = bias_training(), packed_rows()
    model_config = tiny_config(router_bias=True)
    straight = TrainState.create(model_config, config)
    list(train(straight, rows, config))

    first = TrainState.create(model_config, config)
    list(islice(train(first, rows, config), 5))
    saved = checkpoint.save(first, tmp_path, "same")
    second = TrainState.create(model_config, config)
    checkpoint.load_into(second, saved, "same")
    assert torch.equal(biases(second), biases(first))
    assert biases(second).any()
    list(train(second, rows, config))
    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
