from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
import torch

from model.config.optim import OptimConfig
from model.config.training import TrainConfig
from model.network.transformer import Transformer
from model.optim.groups import build_optimizer
from model.optim.schedule import learning_rate
from model.tokens.packing import IGNORED, PackedTokens
from model.training.batches import Batch, batch_of_rows, batch_of_step
from model.training.cross_entropy import CHUNK_TOKENS
from model.training.state import NonFiniteLoss, TrainState
from model.training.trainer import StepMetrics, accumulate_gradients, supervised_loss, train, train_step
from tests.model.tiny import SLOTS, batch_of, packed_rows, silenced, tiny_config, tiny_training
from tests.reference.losses import scores_of_rows


def gradients_of(model: Transformer, batch: Batch, config: TrainConfig) -> dict[str, torch.Tensor]:
    model.zero_grad()
    accumulate_gradients(model, batch, config)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def repeater(nats_of_token: dict[int, float]) -> Transformer:
    """A model whose loss for repeating each of the given tokens is known beforehand."""
    config = tiny_config(num_hidden_layers=1)
    model = silenced(Transformer(config))
    with torch.no_grad():
        for dimension, (token, nats) in enumerate(nats_of_token.items()):
            logit = math.log((config.vocab_size - 1) / math.expm1(nats))
            model.embed_tokens.weight[token, dimension] = 10.0
            model.norm.weight[dimension] = logit / (10 * math.sqrt(config.hidden_size))
    return model


@pytest.mark.parametrize("micro_batch_rows", [1, 2])
def test_loss_is_the_sum_over_the_step_divided_once(micro_batch_rows: int) -> None:
    """Micro-batches with (loss sum, tokens) = (2, 1) and (90, 9): 92 / 10, not the mean of 2 and 10."""
    model = repeater({5: 2.0, 6: 10.0})
    ids = torch.tensor([[5] * 9, [6] * 9])
    labels = torch.tensor([[5] + [IGNORED] * 8, [6] * 9])
    config = tiny_training(batch_rows=2, micro_batch_rows=micro_batch_rows)
    state = TrainState(model, build_optimizer(model, config.optim))
    step = train_step(state, Batch(ids, labels, torch.ones_like(ids)), config, num_steps=1)
    assert step.loss == pytest.approx(9.2, rel=1e-5)
    assert step.supervised_tokens == 10


@pytest.mark.parametrize("z_loss_coef", [0.0, 0.1])
def test_gradients_do_not_depend_on_the_split_into_micro_batches(z_loss_coef: float) -> None:
    batch = batch_of(8)
    assert len({part.num_supervised for part in batch.split(2)}) == 4
    model = Transformer(tiny_config(router_aux_loss_coef=0.0, router_z_loss_coef=z_loss_coef))
    whole = gradients_of(model, batch, tiny_training(batch_rows=8, micro_batch_rows=8))
    parts = gradients_of(model, batch, tiny_training(batch_rows=8, micro_batch_rows=2))
    assert whole.keys() == parts.keys() == dict(model.named_parameters()).keys()
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=1e-6, rtol=1e-4, msg=name)


def test_gradients_are_those_of_the_mean_over_supervised_tokens() -> None:
    batch = batch_of(4)
    model = Transformer(tiny_config(router_aux_loss_coef=0.0, router_z_loss_coef=0.0))
    ours = gradients_of(model, batch, tiny_training())
    logits = model(batch.ids_BT, batch.segment_BT).flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, batch.labels_BT.flatten(), ignore_index=IGNORED)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for (name, _), gradient in zip(model.named_parameters(), expected, strict=True):
        torch.testing.assert_close(ours[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("coefficient", ["router_aux_loss_coef", "router_z_loss_coef"])
def test_router_losses_move_the_router_in_proportion_to_their_coefficient(coefficient: str) -> None:
    none = {"router_aux_loss_coef": 0.0, "router_z_loss_coef": 0.0}
    gates = []
    for strength in (0.0, 1.0, 2.0):
        model = Transformer(tiny_config(**none | {coefficient: strength}))
        gates.append(gradients_of(model, batch_of(4), tiny_training())["layers.1.mlp.gate.weight"])
    off, on, double = gates
    assert (on - off).abs().max() > 1e-4
    torch.testing.assert_close(double - off, 2 * (on - off), atol=1e-5, rtol=1e-3)


def test_loss_in_chunks_of_logits_is_the_loss_at_once() -> None:
    model = Transformer(tiny_config(num_hidden_layers=1)).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, CHUNK_TOKENS, 32, generator=generator)
    labels = torch.randint(0, 300, (2, CHUNK_TOKENS), generator=generator)
    labels[:, ::3] = IGNORED
    expected = torch.nn.functional.cross_entropy(
        model.logits(hidden).flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    total, nats = supervised_loss(model, hidden, labels)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(nats.sum(), expected, rtol=1e-4, atol=1e-2)
    assert nats.shape == labels.shape
    assert not nats[labels == IGNORED].any()


def test_step_metrics_count_what_the_step_did() -> None:
    config = tiny_training()
    state = TrainState.create(tiny_config(), config)
    batch = batch_of(4)
    scores = scores_of_rows(state.model, batch.ids_BT, batch.labels_BT, batch.segment_BT)
    step = train_step(state, batch, config, num_steps=6)
    real = int((batch.segment_BT != 0).sum())
    assert real < batch.segment_BT.numel()
    assert step.loss == pytest.approx(sum(map(sum, scores)) / batch.num_supervised, rel=1e-5)
    assert (step.number, step.num_steps, step.tokens, step.tokens_seen) == (1, 6, real, real)
    assert step.counts_LE.sum(axis=1).tolist() == [2 * real] * 2
    np.testing.assert_allclose(step.nats_BT, scores, atol=1e-4)
    assert (state.step, state.tokens_seen) == (1, real)
    assert all(parameter.grad is None for parameter in state.model.parameters())
    assert train_step(state, batch, config, num_steps=6).tokens_seen == 2 * real


def test_tracker_sees_expert_load_over_all_layers() -> None:
    step = StepMetrics(
        number=3, num_steps=9, loss=1.5, balance_loss=1.1, z_loss=0.2, lr=1e-3, grad_norm=2.0, clipped=True, tokens=60,
        supervised_tokens=50, tokens_seen=180, seconds=2.0, data_seconds=0.5,
        counts_LE=np.array([[15, 15, 15, 15], [0, 1, 47, 12]]), nats_BT=np.full((4, 15), 1.5), rows_B=np.arange(4),
    )  # fmt: skip
    metrics = step.as_metrics()
    assert metrics["train/loss"] == 1.5
    assert metrics["train/clipped"] == 1.0
    assert metrics["train/tokens_per_s"] == 30.0
    assert metrics["train/data_wait_share"] == 0.25
    assert metrics["moe/max_load_ratio"] == pytest.approx(47 / 15)
    assert metrics["moe/dead_experts"] == 2


def test_training_learns_a_repeating_text() -> None:
    ids = np.tile(np.arange(10, 16), (4, 4)).astype(np.uint16)
    labels = np.roll(ids, -1, axis=1).astype(np.int32)
    tokens = PackedTokens(ids, labels, np.ones_like(ids), fingerprint="")
    config = tiny_training(num_tokens=15 * 4 * SLOTS)
    losses = [step.loss for step in train(TrainState.create(tiny_config(), config), tokens, config)]
    assert losses[0] > 3
    assert losses[-1] < 0.3


def test_training_takes_the_steps_of_its_configuration() -> None:
    config, tokens = tiny_training(), packed_rows()
    state = TrainState.create(tiny_config(), config)
    first = list(islice(train(state, tokens, config), 2))
    rest = list(train(state, tokens, config))
    steps = first + rest
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [step.lr for step in steps] == [learning_rate(config.optim, number, 6) for number in range(6)]
    expected_tokens = [int(batch_of_step(tokens, 4, config.seed, number).real_N.sum()) for number in range(6)]
    assert [step.tokens for step in steps] == expected_tokens
    for number, step in enumerate(steps):
        batch = batch_of_rows(tokens, step.rows_B)
        assert torch.equal(batch.ids_BT, batch_of_step(tokens, 4, config.seed, number).ids_BT)
        assert step.nats_BT[batch.labels_BT.numpy() != IGNORED].mean() == pytest.approx(step.loss, rel=1e-5)
    assert list(train(state, tokens, config)) == []


def test_first_update_has_the_learning_rate_of_the_schedule() -> None:
    """Adam's first update is the learning rate in size, whatever the gradient."""
    config = tiny_training(optim=OptimConfig(peak_lr=0.01, warmup_share=0.5, weight_decay=0.0))
    state = TrainState.create(tiny_config(), config)
    before = state.model.norm.weight.detach().clone()
    train_step(state, batch_of(4), config, num_steps=20)
    moved = (state.model.norm.weight.detach() - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.001), rtol=1e-2, atol=0)


@pytest.mark.parametrize(("clip_norm", "clipped"), [(1e-3, True), (1e3, False)])
def test_gradient_norm_is_reported_before_clipping(clip_norm: float, clipped: bool) -> None:
    config = tiny_training(optim=OptimConfig(clip_norm=clip_norm, beta1=0.5))
    state = TrainState.create(tiny_config(), config)
    gradients = gradients_of(state.model, batch_of(4), config)
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
    state.model.zero_grad()
    step = train_step(state, batch_of(4), config, num_steps=6)
    assert step.grad_norm == pytest.approx(norm, rel=1e-4)
    assert step.clipped is clipped
    applied = {name: 2 * state.optimizer.state[p]["exp_avg"] for name, p in state.model.named_parameters()}
    for name, gradient in gradients.items():
        torch.testing.assert_close(applied[name], gradient * min(1.0, clip_norm / norm), rtol=1e-3, atol=1e-7, msg=name)


def snapshot(state: TrainState) -> list[torch.Tensor]:
    moments = [moment for values in state.optimizer.state.values() for moment in values.values()]
    return [tensor.detach().clone() for tensor in [*state.model.parameters(), *moments]]


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_non_finite_step_leaves_everything_as_it_was(broken: str) -> None:
    config = tiny_training()
    state = TrainState.create(tiny_config(), config)
    train_step(state, batch_of(4), config, num_steps=6)
    if broken == "loss":
        state.model.norm.weight.data.fill_(3e38)
    else:
        state.model.norm.weight.register_hook(lambda gradient: gradient * math.inf)
    before, seen = snapshot(state), state.tokens_seen
    with pytest.raises(NonFiniteLoss, match=r"step 2: .*the weights are those of step 1.*peak_lr \(0\.01\)"):
        train_step(state, batch_of(4), config, num_steps=6)
    assert all(torch.equal(old, new) for old, new in zip(before, snapshot(state), strict=True))
    assert (state.step, state.tokens_seen) == (1, seen)
    assert all(parameter.grad is None for parameter in state.model.parameters())


def test_a_batch_without_targets_is_refused() -> None:
    batch = batch_of(4)
    config = tiny_training()
    state = TrainState.create(tiny_config(), config)
    before = snapshot(state)
    with pytest.raises(ValueError, match="without a single supervised token"):
        train_step(state, Batch(batch.ids_BT, torch.full_like(batch.labels_BT, IGNORED), batch.segment_BT), config, 6)
    assert all(torch.equal(old, new) for old, new in zip(before, snapshot(state), strict=True))


def test_a_micro_batch_without_targets_or_real_tokens_adds_nothing() -> None:
    batch = batch_of(4)
    labels, segments = batch.labels_BT.clone(), batch.segment_BT.clone()
    labels[2:], segments[2:] = IGNORED, 0
    model = Transformer(tiny_config())
    with_empty = gradients_of(model, Batch(batch.ids_BT, labels, segments), tiny_training())
    alone = gradients_of(model, batch.split(2)[0], tiny_training(batch_rows=2))
    for name in alone:
        torch.testing.assert_close(with_empty[name], alone[name], atol=1e-6, rtol=1e-4, msg=name)


def test_bf16_autocast_leaves_weights_gradients_and_moments_in_fp32() -> None:
    config = tiny_training(precision="bf16")
    state = TrainState.create(tiny_config(), config)
    gradients = gradients_of(state.model, batch_of(4), config)
    exact = gradients_of(state.model, batch_of(4), tiny_training(precision="fp32"))
    assert any(not torch.equal(gradients[name], exact[name]) for name in exact)
    train_step(state, batch_of(4), config, num_steps=6)
    assert {tensor.dtype for tensor in [*gradients.values(), *snapshot(state)]} == {torch.float32}


def test_training_puts_the_model_into_training_mode() -> None:
    config = tiny_training()
    state = TrainState.create(tiny_config(), config)
    state.model.eval()
    next(train(state, packed_rows(), config))
    assert state.model.training
