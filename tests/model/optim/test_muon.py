from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.config.optim import OptimConfig
from model.network.transformer import Transformer
from model.optim.groups import build_optimizer
from model.optim.muon import MuonAdamW, orthogonalise
from model.tokens.packing import PackedTokens
from model.training.checkpoint import discover, load_into, save
from model.training.state import TrainState
from model.training.trainer import train
from tests.model.tiny import SLOTS, packed_rows, tiny_config, tiny_training
from tests.reference.muon import PlainMuon, matrices_of, newton_schulz

BF16 = 0.03
"""What five iterations in eight bits of mantissa may be off, as a share of the update's norm."""
CONFIG = OptimConfig(name="muon", peak_lr=0.02, weight_decay=0.5, muon_momentum=0.9)
MATRICES = ("proj.weight", "gate_up_proj", "down_proj")


def random_gradients(model: nn.Module, seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    gradients = {name: scale * torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name].clone()
    return gradients


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def step_of(gradients: dict[str, Tensor], lr: float = 1.0) -> dict[str, Tensor]:
    """What a first step without decay takes off weights with these gradients."""
    parameters = {name: nn.Parameter(torch.zeros_like(gradient)) for name, gradient in gradients.items()}
    groups = [{"params": [p], "stacked": 2 if name.endswith("gate_up_proj") else 1} for name, p in parameters.items()]
    for name, parameter in parameters.items():
        parameter.grad = gradients[name]
    MuonAdamW(groups, lr=lr, betas=(0.9, 0.95), momentum=0.95).step()
    return {name: -parameter.detach() for name, parameter in parameters.items()}


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def test_matrices_follow_the_plain_version_one_at_a_time() -> None:
    model = Transformer(tiny_config(hidden_size=24))
    names = [name for name in weights_of(model) if name.endswith(MATRICES)]
    assert len(names) == 2 * 6
    plain = PlainMuon({name: weights_of(model)[name] for name in names}, momentum=0.9, weight_decay=0.5)
    optimizer = build_optimizer(model, CONFIG)
    for seed in range(4):
        before, plain_before = weights_of(model), copy.deepcopy(plain.weights)
        gradients = random_gradients(model, seed)
        plain.step({name: gradients[name] for name in names}, lr=0.02)
        optimizer.step()
        for name in names:
            ours = weights_of(model)[name] - 0.99 * before[name]
            theirs = plain.weights[name] - 0.99 * plain_before[name]
            assert relative_error(ours, theirs) < BF16, name


@pytest.mark.parametrize("shape", [(16, 32), (32, 16), (24, 24)])
def test_a_single_matrix_follows_pytorch(shape: tuple[int, int]) -> None:
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    optimizer = MuonAdamW(
        [{"params": [ours], "stacked": 1}], lr=0.02, betas=(0.9, 0.95), momentum=0.9, weight_decay=0.5
    )
    reference = torch.optim.Muon([theirs], lr=0.02, momentum=0.9, weight_decay=0.5, adjust_lr_fn="match_rms_adamw")
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    assert relative_error(ours.detach() - 1, theirs.detach() - 1) < BF16


@settings(max_examples=15)
@given(st.integers(1, 5), st.integers(4, 24), st.integers(8, 40), st.floats(1e-4, 1e4))
def test_singular_values_are_near_one(count: int, rows: int, more: int, scale: float) -> None:
    """A random matrix twice as long as high has no tiny singular values; those stay where five steps leave them."""
    generator = torch.Generator().manual_seed(count + rows)
    matrices = scale * torch.randn(count, rows, 2 * rows + more, generator=generator)
    result = orthogonalise(matrices).float()
    values = torch.linalg.svdvals(result)
    assert 0.6 < values.min() <= values.max() < 1.3
    for matrix, found in zip(matrices, result, strict=True):
        assert relative_error(found, newton_schulz(matrix)) < BF16


def test_small_singular_values_are_lifted_and_none_is_driven_far_above_one() -> None:
    """From 1 down to a millionth; what is above a hundredth comes near 1."""
    decaying = torch.diag_embed(torch.logspace(0, -6, 32).expand(3, 32))
    values = torch.linalg.svdvals(orthogonalise(decaying).float())
    assert values.max() < 1.3
    assert values[:, :10].min() > 0.6


def test_experts_and_halves_of_gate_up_do_not_see_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(3, 16, 24, generator=generator)
    changed = gradient.clone()
    changed[1, 8:] = torch.randn(8, 24, generator=generator)
    before, after = (step_of({"gate_up_proj": g})["gate_up_proj"] for g in (gradient, changed))
    same = torch.ones(3, 16, dtype=torch.bool)
    same[1, 8:] = False
    torch.testing.assert_close(after[same], before[same])
    assert relative_error(after[1, 8:], before[1, 8:]) > 0.5


def test_a_weight_moves_the_same_alone_and_among_others() -> None:
    """Matrices of one shape share a product, lying or standing; that must not mix them."""
    gradients = {
        name: g for name, g in random_gradients(Transformer(tiny_config()), 0).items() if name.endswith(MATRICES)
    }
    together = step_of(gradients)
    for name, gradient in gradients.items():
        alone = step_of({name: gradient})[name]
        torch.testing.assert_close(together[name], alone, msg=name)


@pytest.mark.parametrize("shape", [(32, 64), (64, 32), (3, 64, 16), (2, 16, 128)])
def test_update_has_the_root_mean_square_of_adamw(shape: tuple[int, ...]) -> None:
    update = step_of({"down_proj": torch.randn(shape, generator=torch.Generator().manual_seed(0))}, lr=0.5)["down_proj"]
    assert 0.5 * 0.15 < float(update.square().mean().sqrt()) < 0.5 * 0.22


@settings(max_examples=10)
@given(st.floats(1e-3, 1e3))
def test_update_does_not_depend_on_the_size_of_the_gradient(scale: float) -> None:
    gradient = torch.randn(2, 16, 24, generator=torch.Generator().manual_seed(0))
    small, large = (step_of({"down_proj": g})["down_proj"] for g in (gradient, scale * gradient))
    assert relative_error(large, small) < BF16


def test_update_of_a_rotated_gradient_is_the_rotated_update() -> None:
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(16, 32, generator=generator)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q
    turned = step_of({"down_proj": rotation @ gradient})["down_proj"]
    assert relative_error(turned, rotation @ step_of({"down_proj": gradient})["down_proj"]) < BF16


def test_an_expert_without_gradient_stays_where_it_is() -> None:
    gradient = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(0))
    gradient[1] = 0
    update = step_of({"down_proj": gradient})["down_proj"]
    assert update[1].abs().max() == 0
    assert update[0].abs().min() > 0


def test_everything_but_matrices_follows_adamw_to_the_bit() -> None:
    models = [Transformer(tiny_config()), Transformer(tiny_config())]
    values = {"peak_lr": 0.02, "router_weight_decay": 0.3, "embedding_weight_decay": 0.2, "embedding_lr_factor": 0.5}
    optimizers = [
        build_optimizer(model, OptimConfig(name=name, **values))
        for model, name in zip(models, ("muon", "adamw"), strict=True)
    ]
    for seed in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            random_gradients(model, seed)
            optimizer.step()
    muon, adamw = map(weights_of, models)
    for name in muon:
        assert torch.equal(muon[name], adamw[name]) is not name.endswith(MATRICES), name


def test_parameters_without_a_gradient_are_left_alone() -> None:
    model = Transformer(tiny_config())
    optimizer = build_optimizer(model, CONFIG)
    random_gradients(model, 0)
    frozen = ("layers.0.self_attn.q_proj.weight", "layers.1.mlp.experts.gate_up_proj", "norm.weight")
    for name in frozen:
        model.get_parameter(name).grad = None
    before = weights_of(model)
    optimizer.step()
    moved = {name for name, weight in weights_of(model).items() if not torch.equal(weight, before[name])}
    assert moved == before.keys() - set(frozen)
    assert {name for name, p in model.named_parameters() if p not in optimizer.state} == set(frozen)


def test_step_returns_what_its_closure_returns() -> None:
    weight = nn.Parameter(torch.ones(4, 8))
    optimizer = MuonAdamW([{"params": [weight], "stacked": 1}], lr=0.1, betas=(0.9, 0.95), momentum=0.95)

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 32.0
    assert float(weight.detach().square().sum()) < 32.0


def test_a_run_resumed_from_a_checkpoint_gives_the_same_bits(tmp_path: Path) -> None:
    config = tiny_training(optim=CONFIG)
    straight, interrupted = (TrainState.create(tiny_config(), config) for _ in range(2))
    for _ in train(straight, packed_rows(), config):
        pass
    next(iter(train(interrupted, packed_rows(), config)))
    save(interrupted, tmp_path, "run")
    model = Transformer(tiny_config(), seed=9)
    resumed = TrainState(model, build_optimizer(model, CONFIG))
    load_into(resumed, discover(tmp_path)[-1], "run")
    for _ in train(resumed, packed_rows(), config):
        pass
    for (name, ours), theirs in zip(straight.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        ours_state, their_state = straight.optimizer.state[ours], resumed.optimizer.state[theirs]
        assert ours_state.keys() == their_state.keys()
        assert all(torch.equal(ours_state[key], their_state[key]) for key in ours_state), name


def test_muon_learns_a_repeating_text() -> None:
    ids = np.tile(np.arange(10, 16), (4, 4)).astype(np.uint16)
    labels = np.roll(ids, -1, axis=1).astype(np.int32)
    tokens = PackedTokens(ids, labels, np.ones_like(ids), fingerprint="")
    optim = OptimConfig(name="muon", peak_lr=1e-2, warmup_share=0.3)
    config = tiny_training(num_tokens=25 * 4 * SLOTS, optim=optim)
    losses = [step.loss for step in train(TrainState.create(tiny_config(), config), tokens, config)]
    assert losses[0] > 3
    assert losses[-1] < 0.3


def test_the_plain_version_splits_weights_as_it_says() -> None:
    """The reference itself: three experts of two halves, each of them a view of the right rows."""
    weight = torch.arange(3 * 4 * 2.0).view(3, 4, 2)
    assert [tuple(part.shape) for part in matrices_of("gate_up_proj", weight)] == [(2, 2)] * 6
    assert [tuple(part.shape) for part in matrices_of("down_proj", weight)] == [(4, 2)] * 3
    assert math.isclose(float(torch.linalg.matrix_norm(newton_schulz(weight[0]), 2)), 1, abs_tol=0.3)
