from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.tokens.order import rows_of_step
from model.tokens.packing import PackedTokens
from model.training.batches import batch_of_rows, batch_of_step
from tests.model.tiny import packed_rows


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 99))
def test_every_epoch_is_a_permutation_of_all_rows(num_rows: int, batch_rows: int, seed: int) -> None:
    epochs = 3
    steps = -(-epochs * num_rows // batch_rows)
    order = np.concatenate([rows_of_step(num_rows, batch_rows, seed, step) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(order[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))


def test_rows_depend_on_seed_and_step_alone() -> None:
    forwards = [rows_of_step(20, 6, 1, step).tolist() for step in range(10)]
    np.random.seed(5)
    torch.manual_seed(5)
    backwards = [rows_of_step(20, 6, 1, step).tolist() for step in reversed(range(10))]
    assert forwards == backwards[::-1]


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = [tuple(rows_of_step(50, 50, seed, epoch)) for seed in (1, 2) for epoch in (0, 1)]
    assert len(set(orders)) == len(orders)


def spread_of_batch_means(loss_of_row: np.ndarray, batch_rows: int) -> float:
    """Standard deviation of the mean loss of a step, over sixteen epochs."""
    steps = 16 * len(loss_of_row) // batch_rows
    means = [loss_of_row[rows_of_step(len(loss_of_row), batch_rows, 1, step)].mean() for step in range(steps)]
    return float(np.std(means))


@pytest.mark.parametrize("batch_rows", [4, 16, 64])
def test_the_loss_of_a_batch_scatters_with_the_root_of_its_size(batch_rows: int) -> None:
    """Easy rows first and hard ones last, as sources come: in order, larger batches would not calm it."""
    losses = np.sort(np.random.default_rng(0).normal(3, 1, 2048))
    expected = float(losses.std()) * np.sqrt((1 - batch_rows / len(losses)) / batch_rows)
    assert spread_of_batch_means(losses, batch_rows) == pytest.approx(expected, rel=0.1)
    unshuffled = losses.reshape(-1, batch_rows).mean(axis=1).std()
    assert unshuffled > 1.9 * expected


def test_a_batch_holds_the_rows_of_its_step() -> None:
    tokens = packed_rows(num_rows=5)
    batch = batch_of_step(tokens, batch_rows=3, seed=7, step=4)
    rows = rows_of_step(5, 3, 7, 4)
    for tensor, array in (
        (batch.ids_BT, tokens.input_ids),
        (batch.labels_BT, tokens.labels),
        (batch.segment_BT, tokens.segment_ids),
    ):
        assert tensor.dtype == torch.int64
        assert tensor.tolist() == array[rows].tolist()


def test_a_batch_knows_its_targets_and_its_padding() -> None:
    tokens = PackedTokens(
        np.array([[5, 6, 0], [7, 8, 9]], dtype=np.uint16),
        np.array([[6, -100, -100], [8, 9, -100]], dtype=np.int32),
        np.array([[1, 1, 0], [1, 1, 2]], dtype=np.uint16),
        fingerprint="",
    )
    batch = batch_of_rows(tokens, np.array([0, 1]))
    assert batch.num_supervised == 3
    assert batch.real_N.tolist() == [True, True, False, True, True, True]


@given(st.integers(1, 6))
def test_micro_batches_are_the_batch_in_order(rows: int) -> None:
    batch = batch_of_rows(packed_rows(num_rows=6), np.arange(6))
    parts = batch.split(rows)
    assert all(len(part.ids_BT) == rows for part in parts[:-1])
    for name in ("ids_BT", "labels_BT", "segment_BT"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))


def test_no_rows_at_all_is_refused_with_a_cure() -> None:
    empty = np.zeros((0, 16), dtype=np.uint16)
    tokens = PackedTokens(empty, empty.astype(np.int32), empty, fingerprint="")
    with pytest.raises(ValueError, match="no packed rows; give the recipe more text or shorter rows"):
        batch_of_step(tokens, batch_rows=4, seed=0, step=0)
