from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config import OptimConfig
from model.optim import build_optimizer, learning_rate
from model.transformer import Transformer
from tests.model.tiny import tiny_config
from tests.reference.adamw import PlainAdamW

shares = st.floats(0, 1)


def test_adamw_equals_the_paper_and_decays_neither_norms_nor_embedding() -> None:
    config = OptimConfig(peak_lr=0.02, weight_decay=0.5, beta1=0.8, beta2=0.9)
    model = Transformer(tiny_config(num_hidden_layers=1))
    optimizer = build_optimizer(model, config)
    weights = {name: parameter.detach().double().clone() for name, parameter in model.named_parameters()}
    decayed = {name for name in weights if not name.endswith("norm.weight") and name != "embed_tokens.weight"}
    plain = PlainAdamW(weights, decayed, config.beta1, config.beta2, config.weight_decay)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        plain.step({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, config.peak_lr)
        optimizer.step()
    assert 0 < len(decayed) < len(weights)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.double(), plain.weights[name], atol=1e-5, rtol=1e-5, msg=name)


def test_schedule_passes_through_its_corners() -> None:
    config = OptimConfig(peak_lr=0.1, warmup_share=0.2, final_lr_share=0.3)
    rates = [learning_rate(config, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1 / 20)
    assert rates[19] == rates[20] == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0.1 * (0.3 + 0.7 / 2))
    assert rates[100] == pytest.approx(0.03)


@given(st.integers(1, 300), shares, shares)
def test_schedule_rises_to_the_peak_and_then_falls(num_steps: int, warmup_share: float, final_share: float) -> None:
    config = OptimConfig(peak_lr=0.1, warmup_share=warmup_share, final_lr_share=final_share)
    warmup_steps = round(warmup_share * num_steps)
    rates = [learning_rate(config, step, num_steps) for step in range(num_steps)]
    assert max(rates) == pytest.approx(0.1)
    assert min(rates) > 0
    assert rates[:warmup_steps] == sorted(set(rates[:warmup_steps]))
    assert rates[warmup_steps:] == sorted(rates[warmup_steps:], reverse=True)
    assert min(rates[warmup_steps:], default=0.1) >= 0.1 * final_share * (1 - 1e-9)


@given(st.integers(8, 300), st.floats(0.2, 0.8))
def test_schedule_is_straight_on_both_sides_of_the_peak(num_steps: int, warmup_share: float) -> None:
    config = OptimConfig(peak_lr=1.0, warmup_share=warmup_share)
    warmup_steps = round(warmup_share * num_steps)
    rates = [learning_rate(config, step, num_steps) for step in range(num_steps)]
    up, down = np.diff(rates[:warmup_steps]), np.diff(rates[warmup_steps:])
    assert up == pytest.approx(1 / warmup_steps)
    assert down == pytest.approx(-1 / (num_steps - warmup_steps))
