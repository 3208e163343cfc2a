"""Several ranks compute what one process does, and all end a step with the same bits; ranks are threads here."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from typing import TypeVar

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from model.config.optim import OptimConfig
from model.config.training import TrainConfig
from model.experts.router import TopKRouter
from model.network.transformer import Transformer
from model.parallel.ranks import ALONE, RankLost, Ranks, RanksDiffer, join
from model.tokens.packing import IGNORED
from model.training.batches import Batch, batch_of_rows, batch_of_step
from model.training.state import NonFiniteLoss, TrainState
from model.training.trainer import StepMetrics, accumulate_gradients, train, train_step
from tests.model.tiny import packed_rows, tiny_config, tiny_training
from tests.model.training.test_trainer import repeater

Result = TypeVar("Result")
PATIENCE = timedelta(seconds=60)
UNASKED = join(dist.HashStore(), 0, 1, torch.device("cpu"), PATIENCE).group
"""For what needs a group and no sums."""
MODEL = tiny_config(router_bias=True, router_aux_loss_coef=0.1, router_z_loss_coef=0.01)


def on_ranks(count: int, work: Callable[[Ranks], Result]) -> list[Future[Result]]:
    """`work` on ranks that are threads of this process, each done."""
    store = dist.HashStore()

    def on_rank(rank: int) -> Result:
        return work(join(store, rank, count, torch.device("cpu"), PATIENCE))

    with ThreadPoolExecutor(count) as pool:
        return [pool.submit(on_rank, rank) for rank in range(count)]


def results(count: int, work: Callable[[Ranks], Result]) -> list[Result]:
    return [future.result() for future in on_ranks(count, work)]


def training(micro_batch_rows: int, **changes: object) -> TrainConfig:
    """Four steps of eight rows."""
    rows = {"batch_rows": 8, "micro_batch_rows": micro_batch_rows, "num_tokens": 4 * 8 * 24}
    return tiny_training(**rows | {"router_bias_rate": 0.01, "router_bias_fade_share": 0.3} | changes)


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def biases(state: TrainState) -> torch.Tensor:
    routers = [module for module in state.model.modules() if isinstance(module, TopKRouter)]
    return torch.stack([router.e_score_correction_bias for router in routers])


def test_loss_is_the_sum_over_ranks_divided_once() -> None:
    """Ranks with (loss sum, tokens) = (2, 1) and (90, 9): 92 / 10, not the mean of 2 and 10."""
    ids, config = torch.tensor([[5] * 9, [6] * 9]), tiny_training(batch_rows=2, micro_batch_rows=1)
    labels = torch.tensor([[5] + [IGNORED] * 8, [6] * 9])
    whole = Batch(ids, labels, torch.ones_like(ids))

    def step(ranks: Ranks) -> StepMetrics:
        torch.manual_seed(0)
        state = TrainState.create(tiny_config(num_hidden_layers=1), config)
        state.model.load_state_dict(repeater({5: 2.0, 6: 10.0}).state_dict())
        return train_step(state, whole.split(1)[ranks.rank], config, 1, ranks)

    for actual in results(2, step):
        assert actual.loss == pytest.approx(9.2, rel=1e-5)
        assert (actual.supervised_tokens, actual.tokens, actual.tokens_seen) == (10, 18, 18)


@pytest.mark.parametrize(("scope", "micro_batch_rows_alone"), [("step", 4), ("micro_batch", 2)])
def test_gradients_of_ranks_are_those_of_one_process(scope: str, micro_batch_rows_alone: int) -> None:
    tokens, config = packed_rows(), training(2, balance_scope=scope)
    whole = batch_of_step(tokens, 8, config.seed, 0)
    alone = Transformer(MODEL)
    expected = accumulate_gradients(alone, whole, replace(config, micro_batch_rows=micro_batch_rows_alone))

    def work(ranks: Ranks) -> tuple[tuple[object, ...], dict[str, torch.Tensor], int]:
        model, batch = Transformer(MODEL), batch_of_step(tokens, 8, config.seed, 0, ranks, 2)
        return accumulate_gradients(model, batch, config, ranks), gradients(model), batch.num_supervised

    (sums, ours, supervised), (other_sums, theirs, other_supervised) = results(2, work)
    assert supervised != other_supervised
    assert supervised + other_supervised == whole.num_supervised == sums.supervised_tokens
    assert sums[:3] == other_sums[:3]
    assert sums[:3] == pytest.approx(expected[:3], rel=1e-5)
    assert torch.equal(sums.counts_LE, expected.counts_LE)
    torch.testing.assert_close(sums.nats_BT, expected.nats_BT, atol=1e-5, rtol=1e-5)
    assert sums.tokens == other_sums.tokens == expected.tokens
    for name, gradient in gradients(alone).items():
        assert torch.equal(ours[name], theirs[name]), name
        torch.testing.assert_close(ours[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("scope", ["step", "micro_batch"])
@pytest.mark.parametrize(("count", "micro_batch_rows"), [(2, 2), (4, 1)])
def test_steps_of_ranks_are_those_of_one_process(optimizer: str, scope: str, count: int, micro_batch_rows: int) -> None:
    optim = OptimConfig(name=optimizer, peak_lr=3e-3, warmup_share=0.3, clip_norm=0.5)
    config = training(micro_batch_rows, balance_scope=scope, optim=optim, num_ranks=count)
    tokens = packed_rows(12)

    def work(ranks: Ranks, config: TrainConfig = config) -> tuple[TrainState, list[StepMetrics], list[torch.Tensor]]:
        state, moved = TrainState.create(MODEL, config), []
        steps = [step for step in train(state, tokens, config, ranks) if moved.append(biases(state)) is None]
        return state, steps, moved

    larger = micro_batch_rows * (count if scope == "step" else 1)
    alone, expected, moved_alone = work(ALONE, replace(config, micro_batch_rows=larger, num_ranks=1))
    actual = results(count, work)
    assert [step.number for step in expected] == [1, 2, 3, 4]
    assert moved_alone[1].any() and not moved_alone[-1].any()
    for state, steps, moved in actual:
        first = actual[0][0].model.state_dict()
        assert all(torch.equal(weight, first[name]) for name, weight in state.model.state_dict().items())
        for (name, ours), theirs in zip(state.model.named_parameters(), alone.model.parameters(), strict=True):
            assert (ours - theirs).norm().item() <= 2e-3 * theirs.norm().item(), name
        for step, other in zip(steps, expected, strict=True):
            for figure in ("loss", "balance_loss", "z_loss", "grad_norm"):
                assert getattr(step, figure) == pytest.approx(getattr(other, figure), rel=2e-4), figure
            for figure in ("number", "num_steps", "lr", "clipped", "tokens", "supervised_tokens", "tokens_seen"):
                assert getattr(step, figure) == getattr(other, figure), figure
            assert step.counts_LE.tolist() == other.counts_LE.tolist()
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(moved, moved_alone, strict=True))
        assert (state.step, state.tokens_seen) == (4, alone.tokens_seen)


@pytest.mark.parametrize("empty", ["targets", "real tokens"])
def test_a_rank_may_have_nothing_to_learn_from(empty: str) -> None:
    config, batch = training(2), batch_of_rows(packed_rows(), np.arange(8))
    labels, segments = batch.labels_BT.clone(), batch.segment_BT.clone()
    labels[4:] = IGNORED
    if empty == "real tokens":
        segments[4:] = 0
    parts = Batch(batch.ids_BT, labels, segments).split(4)

    def work(ranks: Ranks) -> dict[str, torch.Tensor]:
        model = Transformer(replace(MODEL, router_aux_loss_coef=0.0))
        accumulate_gradients(model, parts[ranks.rank], config, ranks)
        return gradients(model)

    alone = Transformer(replace(MODEL, router_aux_loss_coef=0.0))
    accumulate_gradients(alone, Batch(batch.ids_BT, labels, segments), config)
    for actual in results(2, work):
        for name, gradient in gradients(alone).items():
            torch.testing.assert_close(actual[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_no_target_on_any_rank_is_refused_by_all() -> None:
    batch = batch_of_rows(packed_rows(), np.arange(8))
    parts = Batch(batch.ids_BT, torch.full_like(batch.labels_BT, IGNORED), batch.segment_BT).split(4)
    for future in on_ranks(
        2, lambda ranks: accumulate_gradients(Transformer(MODEL), parts[ranks.rank], training(2), ranks)
    ):
        with pytest.raises(ValueError, match="without a single supervised token"):
            future.result()


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_non_finite_rank_stops_all_in_the_same_step(broken: str) -> None:
    def work(ranks: Ranks) -> None:
        state = TrainState.create(MODEL, training(2))
        for step in train(state, packed_rows(), training(2), ranks):
            if step.number == 2 and ranks.rank == 1 and broken == "loss":
                state.model.norm.weight.data.fill_(3e38)
            elif step.number == 2 and ranks.rank == 1:
                state.model.norm.weight.register_hook(lambda gradient: gradient * math.inf)

    for future in on_ranks(2, work):
        with pytest.raises(NonFiniteLoss, match=r"step 3: .*the weights are those of step 2"):
            future.result()


def test_a_rank_that_ends_is_lost_to_the_others() -> None:
    def work(ranks: Ranks) -> None:
        for step in train(TrainState.create(MODEL, training(2)), packed_rows(), training(2), ranks):
            if step.number == 2 and ranks.rank == 1 and ranks.group is not None:
                ranks.group.abort()
                return

    first, second = on_ranks(2, work)
    assert second.result() is None
    with pytest.raises(RankLost, match="rank 0 of 2 lost another"):
        first.result()


def test_nobody_waits_for_ever_for_a_rank_that_does_not_come() -> None:
    with pytest.raises(RankLost, match="rank 1 of 2 did not meet the others"):
        join(dist.HashStore(), 1, 2, torch.device("cpu"), timedelta(milliseconds=50))


def test_a_single_bit_that_differs_is_found_on_every_rank() -> None:
    started = threading.Barrier(2)

    def work(ranks: Ranks) -> None:
        state = TrainState.create(MODEL, training(2))
        ranks.require_same(state.model)
        started.wait()
        if ranks.rank == 1:
            state.model.norm.weight.data.view(torch.int32)[3] ^= 1
        ranks.require_same(state.model)

    for future in on_ranks(2, work):
        with pytest.raises(RanksDiffer, match="2 ranks"):
            future.result()
    assert not started.broken


def test_training_finds_ranks_that_drift_apart_before_a_checkpoint() -> None:
    config = training(2, checkpoint_every_steps=3)

    def work(ranks: Ranks) -> int:
        state = TrainState.create(MODEL, config)
        with pytest.raises(RanksDiffer):
            for step in train(state, packed_rows(), config, ranks):
                if step.number == 1 and ranks.rank == 1:
                    state.model.norm.weight.data[3] *= 1.001
        return state.step

    assert results(2, work) == [3, 3]


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_shares_are_dealt_in_turns_of_a_micro_batch(count: int, micro_batch_rows: int, turns: int) -> None:
    rows_N = np.random.default_rng(0).permutation(count * micro_batch_rows * turns)
    shares = [Ranks(rank, count, UNASKED).rows(rows_N, micro_batch_rows) for rank in range(count)]
    for turn in range(turns):
        of_turn = [share[turn * micro_batch_rows : (turn + 1) * micro_batch_rows].tolist() for share in shares]
        start = turn * count * micro_batch_rows
        assert list(chain.from_iterable(of_turn)) == rows_N[start : start + count * micro_batch_rows].tolist()


def test_what_cannot_be_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_rows \(6\) must be a multiple of micro_batch_rows \(4\)"):
        ALONE.rows(np.arange(6), 4)
    with pytest.raises(ValueError, match=r"rank \(2\) .* the 2 ranks"):
        Ranks(2, 2)
    with pytest.raises(ValueError, match="2 ranks need a group"):
        Ranks(0, 2)
