"""What keeps a run alive: clipping, AdamW's second moment, a warm-up, and sums that bf16 does not touch."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from model.config.optim import OptimConfig
from model.config.training import TrainConfig
from model.training.scoring import score, totals
from model.training.state import TrainState
from model.training.trainer import StepMetrics, accumulate_gradients, clip_gradients, train, train_step
from tests.model.tiny import SLOTS, batch_of, packed_rows, tiny_config, tiny_training

BEFORE = 4


def after_an_outlier(config: TrainConfig, factor: float) -> tuple[TrainState, StepMetrics, float]:
    """State after a few steps and one whose gradients were multiplied, that step, and the furthest any weight went."""
    state = TrainState.create(tiny_config(), config)
    for _ in range(BEFORE):
        train_step(state, batch_of(4), config, num_steps=60)
    hooks = [p.register_hook(lambda gradient: factor * gradient) for p in state.model.parameters()]
    before = [p.detach().clone() for p in state.model.parameters()]
    step = train_step(state, batch_of(4), config, num_steps=60)
    for hook in hooks:
        hook.remove()
    moves = [float((p.detach() - old).abs().max()) for p, old in zip(state.model.parameters(), before, strict=True)]
    return state, step, max(moves)


@pytest.mark.parametrize("factor", [1e3, 1e6])
def test_an_outlier_counts_no_more_than_a_gradient_of_the_clipping_norm(factor: float) -> None:
    config = tiny_training(optim=OptimConfig(peak_lr=1e-2, clip_norm=0.5))
    (usual, usual_step, _), (hit, hit_step, _) = (after_an_outlier(config, f) for f in (1.0, factor))
    assert usual_step.clipped and hit_step.clipped
    assert hit_step.grad_norm == pytest.approx(factor * usual_step.grad_norm, rel=1e-3)
    for (name, one), other in zip(usual.model.named_parameters(), hit.model.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5, msg=name)
        moments = usual.optimizer.state[one]["exp_avg_sq"], hit.optimizer.state[other]["exp_avg_sq"]
        torch.testing.assert_close(moments[1], moments[0], rtol=1e-3, atol=1e-9, msg=name)


@pytest.mark.parametrize("share", [0.1, 0.999, 1.0, 1.001, 10.0])
def test_gradients_are_clipped_as_pytorch_does_to_the_bit(share: float) -> None:
    models = []
    for _ in range(2):
        state = TrainState.create(tiny_config(), tiny_training())
        accumulate_gradients(state.model, batch_of(4), tiny_training())
        models.append(state.model)
    norm = torch.nn.utils.get_total_norm([p.grad for p in models[0].parameters() if p.grad is not None])
    ours = clip_gradients(models[0], share * float(norm))
    assert ours == float(torch.nn.utils.clip_grad_norm_(models[1].parameters(), share * float(norm)))
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_adamw_survives_an_outlier_that_nothing_clipped() -> None:
    """Its second moment takes the outlier in before the step is made, so no weight runs away, and it forgets."""
    config = tiny_training(optim=OptimConfig(peak_lr=3e-3, clip_norm=1e9, weight_decay=0.0))
    state, step, furthest = after_an_outlier(config, 1e3)
    assert not step.clipped
    assert step.grad_norm > 100
    assert furthest <= 2 * step.lr
    later = [train_step(state, batch_of(4), config, num_steps=60).loss for _ in range(50)]
    assert max(later) < 1.5 * step.loss
    assert later[-1] < 0.9 * step.loss


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.0, 2.0, 4.0])
def test_no_learning_rate_around_the_default_diverges(factor: float) -> None:
    config = tiny_training(num_tokens=20 * 4 * SLOTS, optim=OptimConfig(peak_lr=factor * OptimConfig().peak_lr))
    losses = [step.loss for step in train(TrainState.create(tiny_config(), config), packed_rows(), config)]
    assert max(losses) < 1.1 * losses[0]
    assert losses[-1] < 0.95 * losses[0]


def test_training_in_bf16_ends_where_training_in_fp32_does() -> None:
    rows, byte_lengths, actual = packed_rows(32), np.full(300, 3), {}
    for precision in ("fp32", "bf16"):
        config = tiny_training(num_tokens=20 * 4 * SLOTS, precision=precision, optim=OptimConfig())
        state = TrainState.create(tiny_config(), config)
        steps = list(islice(train(state, rows, config), 20))
        assert steps[-1].loss < steps[0].loss
        scored = score(state.model, rows, precision=precision)
        actual[precision] = totals(scored, rows.labels, byte_lengths).bits_per_byte
    assert actual["bf16"] != actual["fp32"]
    assert actual["bf16"] == pytest.approx(actual["fp32"], rel=2e-3)
