"""The only training loop there is: a generator that yields after every optimizer step.

Pretraining and SFT differ in batches and starting state. Tracking, progress and stopping belong to the caller:

    for step in train(state, packed, config):
        tracker.log(step.as_metrics(), step=step.number)

Shapes: B = rows, T = slots, N = B*T, M = supervised tokens, L = layers, E = experts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.config.training import TrainConfig
from model.experts.losses import balance_loss, expert_counts, router_z_loss
from model.experts.router import TopKRouter
from model.network.transformer import Transformer
from model.optim.groups import set_learning_rate
from model.optim.schedule import learning_rate
from model.parallel.ranks import ALONE, Ranks
from model.precision import autocast
from model.tokens.order import Replay, rows_of_step
from model.tokens.packing import IGNORED, PackedTokens, ShardedTokens
from model.training.batches import Batch, batch_of_step
from model.training.cross_entropy import cross_entropy_sum
from model.training.state import NonFiniteLoss, TrainState


@dataclass(frozen=True)
class StepMetrics:
    """What one optimizer step did, over all micro-batches and ranks; the times are those of this rank."""

    number: int
    """Steps done, this one included."""
    num_steps: int
    loss: float
    """Nats per supervised token, over the whole step."""
    balance_loss: float
    z_loss: float
    lr: float
    grad_norm: float
    """Before clipping."""
    clipped: bool
    tokens: int
    supervised_tokens: int
    tokens_seen: int
    seconds: float
    data_seconds: float
    counts_LE: np.ndarray
    """Real tokens routed to each expert; a dense model has no rows."""
    nats_BT: np.ndarray
    """Loss of each slot of the whole step before the update, float32; 0 where a slot has no target."""
    rows_B: np.ndarray
    """Numbers of the packed rows, int64; empty where the batch was not drawn from packed rows."""

    def as_metrics(self) -> dict[str, float]:
        """The step under the names that go to the tracker."""
        metrics = {
            "train/loss": self.loss,
            "train/lr": self.lr,
            "train/grad_norm": self.grad_norm,
            "train/clipped": float(self.clipped),
            "train/tokens_per_s": self.tokens / max(self.seconds, 1e-9),
            "train/data_wait_share": self.data_seconds / max(self.seconds, 1e-9),
            "train/tokens_seen": float(self.tokens_seen),
        }
        if not self.counts_LE.size:
            return metrics
        ratio_LE = self.counts_LE / np.maximum(self.counts_LE.mean(axis=1, keepdims=True), 1e-9)
        return metrics | {
            "moe/balance_loss": self.balance_loss,
            "moe/z_loss": self.z_loss,
            "moe/max_load_ratio": float(ratio_LE.max()),
            "moe/dead_experts": float((ratio_LE < 0.1).sum()),
        }


def supervised_loss(model: Transformer, hidden_BTD: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross entropy over supervised slots, nats, and without gradient that of each slot, (B, T), 0 where
    there is no target; no other slot gets logits."""
    labels_N = labels_BT.flatten()
    supervised_N = labels_N != IGNORED
    loss_sum, nats_M = cross_entropy_sum(hidden_BTD.flatten(0, 1)[supervised_N], model.head, labels_N[supervised_N])
    return loss_sum, nats_M.new_zeros(labels_N.shape).masked_scatter_(supervised_N, nats_M).view_as(labels_BT)


class StepSums(NamedTuple):
    """What the backward passes of a step leave besides gradients, over all micro-batches and ranks."""

    nats: float
    """Sum of the loss over supervised tokens."""
    balance_loss: float
    z_loss: float
    counts_LE: Tensor
    """Real tokens routed to each expert, int64."""
    supervised_tokens: int
    tokens: int
    """Real ones."""
    nats_BT: Tensor
    """Of each slot, of all ranks, float32."""


def accumulate_gradients(model: Transformer, batch: Batch, config: TrainConfig, ranks: Ranks = ALONE) -> StepSums:
    """Forward and backward over the micro-batches of `batch`, this rank's share of the step; gradients are summed.

    Gradients are added to those of `model`, micro-batches and their precision are those of `config`. The loss of the
    step is the sum over all its supervised tokens divided once by their number, whatever the split: (loss sum, tokens)
    = (2, 1) and (90, 9) give 9.2. The router losses weigh each micro-batch by its share of real tokens, and the expert
    shares are counted over the step so far, on all ranks; with `balance_scope` micro_batch over one micro-batch of one
    rank. So R ranks compute what one process does with the same rows and micro-batches R times as large, or with that
    scope as large as theirs. Raises ValueError if no rank has a target.
    """
    model_config = model.config
    device = batch.ids_BT.device
    supervised, real = ranks.sum_numbers([batch.num_supervised, int(batch.real_N.sum())], device)
    if supervised == 0:
        raise ValueError("a batch without a single supervised token; its rows should never have been packed")
    layers = 0 if model_config.dense else model_config.num_hidden_layers
    counts_LE = torch.zeros(layers, model_config.num_experts, dtype=torch.int64, device=device)
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    nats = []
    for micro in batch.split(config.micro_batch_rows):
        with autocast(device, config.precision):
            hidden, routing = model.hidden(micro.ids_BT, micro.segment_BT)
            loss_sum, micro_nats_BT = supervised_loss(model, hidden, micro.labels_BT)
        nats.append(micro_nats_BT)
        real_N = micro.real_N
        share = float(real_N.sum()) / real
        balance = z = hidden.new_zeros((), dtype=torch.float32)
        if routing:
            micro_counts_LE = expert_counts(routing, real_N, model_config.num_experts)
            counts_LE += ranks.sum(micro_counts_LE)  # whatever this rank's share: the others wait for it
            if share:
                counted_LE = counts_LE if config.balance_scope == "step" else micro_counts_LE
                balance, z = balance_loss(routing, real_N, counted_LE), router_z_loss(routing, real_N)
        router_loss = model_config.router_aux_loss_coef * balance + model_config.router_z_loss_coef * z
        (loss_sum / supervised + share * router_loss).backward()
        sums += torch.stack([loss_sum.detach(), share * balance.detach(), share * z.detach()]).double()
    ranks.sum_gradients(model)
    nats_sum, balance_mean, z_mean = ranks.sum(sums).tolist()
    nats_BT = ranks.every_row(torch.cat(nats), config.micro_batch_rows)
    return StepSums(nats_sum, balance_mean, z_mean, counts_LE, supervised, real, nats_BT)


def adjust_router_bias(
    model: Transformer, counts_LE: Tensor, config: TrainConfig, steps_left: int, num_steps: int
) -> None:
    """Even the load by the routers' biases, from the real tokens of the step for each expert, `counts_LE`.

    `steps_left` of `num_steps` are still to come. In the last steps, the very last at least, the biases go to zero, so
    that the model can be exported; how many these are, and how far a bias moves in a step, is in `config`.
    """
    fading_steps = max(1, round(config.router_bias_fade_share * num_steps))
    routers = [module for module in model.modules() if isinstance(module, TopKRouter)]
    for router, counts_E in zip(routers, counts_LE, strict=True):
        if steps_left < fading_steps:
            router.fade_bias(steps_left)
        else:
            router.rebalance(counts_E, config.router_bias_rate)


def clip_gradients(model: Transformer, clip_norm: float) -> float:
    """The norm of all gradients, which are scaled down to `clip_norm` if it is larger.

    The same bits as `clip_grad_norm_`, which goes over all gradients to multiply them by 1 where it is not.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if float(norm) > clip_norm - 1e-6:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), clip_norm, norm)
    return float(norm)


def train_step(
    state: TrainState, batch: Batch, config: TrainConfig, num_steps: int, ranks: Ranks = ALONE
) -> StepMetrics:
    """One optimizer step on `batch`, this rank's share of its rows; afterwards every rank has the same bits.

    `state` is changed in place. Its step out of `num_steps` and `config` give learning rate and bias. Raises
    NonFiniteLoss, on every rank, before the weights are touched.
    """
    started = time.perf_counter()
    sums = accumulate_gradients(state.model, batch, config, ranks)
    norm = clip_gradients(state.model, config.optim.clip_norm)
    loss = sums.nats / sums.supervised_tokens
    if not np.isfinite([loss, norm]).all():
        state.optimizer.zero_grad(set_to_none=True)
        raise NonFiniteLoss(
            f"step {state.step + 1}: loss {loss}, gradient norm {norm}; the weights are those of step {state.step}; "
            f"lower optim.peak_lr ({config.optim.peak_lr}) and run again",
            sums.nats_BT.cpu().numpy(),
        )
    lr = learning_rate(config.optim, state.step, num_steps)
    set_learning_rate(state.optimizer, lr)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    adjust_router_bias(state.model, sums.counts_LE, config, num_steps - state.step, num_steps)
    state.tokens_seen += sums.tokens
    return StepMetrics(
        number=state.step, num_steps=num_steps, loss=loss, balance_loss=sums.balance_loss, z_loss=sums.z_loss, lr=lr,
        grad_norm=norm, clipped=norm > config.optim.clip_norm, tokens=sums.tokens,
        supervised_tokens=sums.supervised_tokens, tokens_seen=state.tokens_seen,
        seconds=time.perf_counter() - started, data_seconds=0.0, counts_LE=sums.counts_LE.cpu().numpy(),
        nats_BT=sums.nats_BT.cpu().numpy(), rows_B=np.empty(0, dtype=np.int64),
    )  # fmt: skip


def train(
    state: TrainState, packed: PackedTokens | ShardedTokens, config: TrainConfig, ranks: Ranks = ALONE,
    replay: Replay | None = None,
) -> Iterator[StepMetrics]:  # fmt: skip
    """Train on rows of `packed` from `state.step` to the last step of `config`, yielding after each step.

    The rows of a step depend on data, seed, `replay` and step number alone, so a run that was interrupted and resumed
    from a checkpoint gives the same bits as one that was not; each of several ranks computes its share of them. Changes
    of experts are the caller's: what it puts into `state` between two steps, on every rank, is trained on. Raises
    RankLost if another rank has ended, RanksDiffer if weights differ at a step that `checkpoint_every_steps` names.
    """
    num_steps = config.num_steps(packed.sequence_length_tokens)
    device = next(state.model.parameters()).device
    state.model.train()
    while state.step < num_steps:
        started = time.perf_counter()
        batch = batch_of_step(
            packed, config.batch_rows, config.seed, state.step, ranks, config.micro_batch_rows, replay
        ).to(device)
        waited = time.perf_counter() - started
        rows_B = rows_of_step(packed.num_rows, config.batch_rows, config.seed, state.step, replay)
        try:
            step = train_step(state, batch, config, num_steps, ranks)
        except NonFiniteLoss as error:
            error.rows_B = rows_B
            raise
        if state.step % config.checkpoint_every_steps == 0 or state.step == num_steps:
            ranks.require_same(state.model)
        yield replace(step, data_seconds=waited, seconds=step.seconds + waited, rows_B=rows_B)
