from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config.optim import OptimConfig
from model.config.training import TrainConfig
from model.training.batches import batch_of_rows
from model.training.lr_finder import LrSweep, find_learning_rate
from model.training.state import NonFiniteLoss, TrainState
from model.training.trainer import accumulate_gradients, train_step
from tests.model.tiny import packed_rows, tiny_config, tiny_training

BATCHES = [batch_of_rows(packed_rows(4, seed=seed), np.arange(4)) for seed in range(3)] * 10
LRS = np.geomspace(1e-6, 1.0, 121)


def create(config: TrainConfig) -> TrainState:
    return TrainState.create(tiny_config(num_hidden_layers=1), config)


def everything_in(state: TrainState) -> list[torch.Tensor]:
    moments = [moment for values in state.optimizer.state.values() for moment in values.values()]
    return [tensor.detach().clone() for tensor in [*state.model.state_dict().values(), *moments]]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_losses_are_those_of_steps_with_rising_rates(name: str) -> None:
    config = tiny_training(optim=OptimConfig(name=name, warmup_share=0.5))
    sweep = find_learning_rate(lambda: create(config), BATCHES, config, lr_min=1e-4, lr_max=1e-2, num_steps=5)
    state, expected = create(config), []
    for batch, lr in zip(BATCHES, (10**-4, 10**-3.5, 10**-3, 10**-2.5, 10**-2), strict=False):
        nats = accumulate_gradients(state.model, batch, config)[0]
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.optim.clip_norm)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.optimizer.step()
        state.optimizer.zero_grad()
        expected.append(nats / batch.num_supervised)
    assert sweep.lrs == pytest.approx([10**-4, 10**-3.5, 10**-3, 10**-2.5, 10**-2])
    assert sweep.losses == pytest.approx(expected, rel=1e-5)
    assert not sweep.diverged


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_given_state_stays_as_it_is(name: str) -> None:
    config = tiny_training(optim=OptimConfig(name=name))
    state = create(config)
    for batch in BATCHES[:2]:
        train_step(state, batch, config, num_steps=6)
    state.model.eval()
    before = everything_in(state)
    sweeps = [find_learning_rate(lambda: state, BATCHES, config, num_steps=5) for _ in range(2)]
    assert np.array_equal(sweeps[0].losses, sweeps[1].losses)
    assert (state.step, state.model.training) == (2, False)
    assert all(parameter.grad is None for parameter in state.model.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, everything_in(state), strict=True))


@pytest.mark.parametrize("lr_max", [1e3, 1e6])
def test_a_sweep_ends_where_the_loss_diverges(lr_max: float) -> None:
    config = tiny_training(optim=OptimConfig(clip_norm=1e9))
    sweep = find_learning_rate(lambda: create(config), BATCHES, config, lr_max=lr_max, num_steps=30)
    assert sweep.diverged
    assert 2 < len(sweep.lrs) == len(sweep.losses) < 30
    assert np.isfinite(sweep.losses[:-1]).all()
    assert sweep.losses[-1] > 1.5 * sweep.losses.min()
    assert sweep.limit < sweep.lrs[-1]


def test_training_at_the_suggested_rate_learns() -> None:
    batch, config = BATCHES[0], tiny_training()
    sweep = find_learning_rate(lambda: create(config), [batch] * 30, config, num_steps=30)

    def last_loss(lr: float) -> float:
        suggested = replace(config, optim=OptimConfig(peak_lr=lr))
        state = create(suggested)
        return [train_step(state, batch, suggested, num_steps=20).loss for _ in range(20)][-1]

    assert last_loss(sweep.suggestion) < 0.7 * sweep.losses[0]
    assert last_loss(sweep.suggestion) < last_loss(sweep.suggestion / 10)


def falling_then_rising(middle: float, turn: float) -> LrSweep:
    """Five nats that fall to three around 10^middle, and a sharp rise from 10^turn on."""
    exponent = np.log10(LRS)
    fall = 2 / (1 + np.exp(-6 * (exponent - middle)))
    return LrSweep(LRS, 5 - fall + 40 * np.maximum(0, exponent - turn) ** 2)


@given(st.floats(-4.5, -2.5))
def test_the_steepest_point_is_where_the_loss_falls_fastest(middle: float) -> None:
    """Smoothing over ten steps lags by half a decade at the most, at 20 steps a decade."""
    sweep = falling_then_rising(middle, turn=-1.0)
    assert middle <= math.log10(sweep.steepest) <= middle + 0.5


@given(st.floats(-4.5, -3.5), st.floats(-2.0, -0.5))
def test_the_limit_lies_where_the_loss_turns(middle: float, turn: float) -> None:
    sweep = falling_then_rising(middle, turn)
    assert turn <= math.log10(sweep.limit) <= turn + 0.5
    assert sweep.steepest < sweep.limit


def test_the_suggestion_is_half_of_the_steepest_point() -> None:
    sweep = falling_then_rising(-3, -1)
    assert sweep.suggestion == pytest.approx(sweep.steepest / 2)


def test_a_loss_that_falls_again_after_its_rise_does_not_count() -> None:
    losses = falling_then_rising(-3, -2).losses
    losses[100:] = 0.5
    sweep = LrSweep(LRS, losses)
    assert sweep.limit < 0.1
    assert sweep.steepest < sweep.limit


def test_smoothed_losses_forget_a_tenth_a_step() -> None:
    sweep = LrSweep(LRS[:4], np.array([4.0, 3.0, 3.0, 8.0]))
    assert sweep.smoothed == pytest.approx([4.0, 3.9, 3.81, 4.229])


@pytest.mark.parametrize("losses", [np.linspace(3, 9, 121), np.full(121, 3.0), np.array([3.0, math.inf])])
def test_a_loss_that_never_falls_suggests_nothing(losses: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"never falls between learning rates 1e-06 and .*smaller lr_min"):
        _ = LrSweep(LRS[: len(losses)], losses).suggestion


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr_min": 0.1, "lr_max": 0.01}, r"lr_min \(0\.1\).*lr_max \(0\.01\)"),
        ({"lr_min": 0.0}, r"lr_min \(0\.0\)"),
        ({"num_steps": 1}, r"num_steps \(1\) must be at least 2"),
        ({"num_steps": 31}, "30 batches for 31 steps"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(values: dict[str, float], message: str) -> None:
    config = tiny_training()
    with pytest.raises(ValueError, match=message):
        find_learning_rate(lambda: create(config), BATCHES, config, **({"lr_max": 1e-4} | values))


def broken(config: TrainConfig) -> Callable[[], TrainState]:
    state = create(config)
    state.model.norm.weight.data.fill_(math.nan)
    return lambda: state


def test_a_state_without_a_loss_is_not_called_diverged() -> None:
    config = tiny_training()
    with pytest.raises(NonFiniteLoss):
        find_learning_rate(broken(config), BATCHES, config, num_steps=5)
