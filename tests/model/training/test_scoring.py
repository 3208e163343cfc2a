from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from model.network.transformer import Transformer
from model.tokens.packing import IGNORED, PackedTokens
from model.training.batches import batch_of_rows
from model.training.scoring import measure, score, totals
from tests.model.tiny import packed_rows, silenced, tiny_config
from tests.reference.losses import scores_of_rows

NUM_ROWS = 5


@pytest.fixture(scope="module")
def model() -> Transformer:
    return Transformer(tiny_config())


@pytest.fixture(scope="module")
def expected(model: Transformer) -> np.ndarray:
    batch = batch_of_rows(packed_rows(NUM_ROWS), np.arange(NUM_ROWS))
    return np.array(scores_of_rows(model, batch.ids_BT, batch.labels_BT, batch.segment_BT))


@pytest.mark.parametrize("batch_rows", [1, 2, 5, 16])
def test_score_is_the_cross_entropy_of_every_target(model: Transformer, expected: np.ndarray, batch_rows: int) -> None:
    nats = score(model, packed_rows(NUM_ROWS), batch_rows, precision="fp32")
    np.testing.assert_allclose(nats, expected, atol=1e-5, rtol=1e-5)
    assert (nats[packed_rows(NUM_ROWS).labels == IGNORED] == 0).all()


def test_score_in_bf16_is_close_and_comes_in_fp32(model: Transformer, expected: np.ndarray) -> None:
    nats = score(model, packed_rows(NUM_ROWS), precision="bf16")
    assert nats.dtype == np.float32
    assert (nats != expected.astype(np.float32)).any()
    assert nats.sum() == pytest.approx(expected.sum(), rel=0.05)


def test_the_score_of_a_side_depends_neither_on_batches_nor_on_bf16(model: Transformer) -> None:
    tokens = packed_rows(40)

    def bits_per_byte(batch_rows: int, precision: str = "fp32") -> float:
        return totals(score(model, tokens, batch_rows, precision), tokens.labels, np.full(300, 3)).bits_per_byte

    whole = bits_per_byte(40)
    assert [bits_per_byte(rows) for rows in (1, 3, 16)] == pytest.approx([whole] * 3, rel=1e-6)
    assert bits_per_byte(16, "bf16") == pytest.approx(whole, rel=2e-3)


def test_totals_are_ratios_of_sums(model: Transformer, expected: np.ndarray) -> None:
    tokens = packed_rows(NUM_ROWS)
    byte_lengths = np.arange(300) % 7
    summed = totals(score(model, tokens, precision="fp32"), tokens.labels, byte_lengths)
    targets = [int(label) for label in tokens.labels.flatten() if label != IGNORED]
    assert summed.tokens == len(targets)
    assert summed.num_bytes == sum(label % 7 for label in targets)
    assert summed.loss == pytest.approx(expected.sum() / len(targets), rel=1e-5)
    assert summed.bits_per_byte == pytest.approx(expected.sum() / math.log(2) / summed.num_bytes, rel=1e-5)


def test_a_model_that_knows_nothing_costs_the_logarithm_of_its_vocabulary() -> None:
    tokens = packed_rows(NUM_ROWS)
    model = silenced(Transformer(tiny_config()))
    summed = totals(score(model, tokens, precision="fp32"), tokens.labels, np.full(300, 2))
    assert summed.loss == pytest.approx(math.log(300), rel=1e-5)
    assert summed.bits_per_byte == pytest.approx(math.log2(300) / 2, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_no_trace(model: Transformer, training: bool) -> None:
    model.train(training)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    random_state = torch.get_rng_state()
    first = score(model, packed_rows(NUM_ROWS))
    assert np.array_equal(first, score(model, packed_rows(NUM_ROWS)))
    assert model.training is training
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_row_without_targets_scores_zero(model: Transformer) -> None:
    tokens = packed_rows(1)
    silent = PackedTokens(tokens.input_ids, np.full_like(tokens.labels, IGNORED), tokens.segment_ids, fingerprint="")
    assert not score(model, silent).any()


def test_nothing_to_score_is_refused() -> None:
    labels = np.array([[IGNORED, 2]])
    byte_lengths = np.array([0, 0, 0, 1])
    with pytest.raises(ValueError, match="no target with text"):
        totals(np.zeros(labels.shape, dtype=np.float32), labels, byte_lengths)


@pytest.mark.parametrize("batch_rows", [2, 16])
def test_what_is_measured_is_what_a_batch_at_once_gives(model: Transformer, batch_rows: int) -> None:
    """Nats as `score` has them, sureness from whole logits, load and routes from the routing, padding left out."""
    tokens, sampled = packed_rows(NUM_ROWS), np.array([0, 3])
    found = measure(model, tokens, sampled, batch_rows, precision="fp32")
    np.testing.assert_array_equal(found.nats_RT, score(model, tokens, batch_rows, precision="fp32"))
    batch = batch_of_rows(tokens, np.arange(NUM_ROWS))
    with torch.no_grad():
        hidden, routing = model.eval().hidden(batch.ids_BT, batch.segment_BT)
        best_BT, choice_BT = model.logits(hidden).softmax(dim=-1).max(dim=-1)
    targets = tokens.labels != IGNORED
    np.testing.assert_allclose(found.confidence_RT[targets], best_BT.numpy()[targets], rtol=1e-4)
    np.testing.assert_array_equal(found.correct_RT[targets], (choice_BT.numpy() == tokens.labels)[targets])
    assert not found.confidence_RT[~targets].any() and not found.correct_RT[~targets].any()
    for layer, its in enumerate(routing):
        experts = its.experts_NK.numpy().reshape(NUM_ROWS, -1, 2)
        np.testing.assert_array_equal(found.routes_STLK[:, :, layer], experts[sampled])
        real = experts[tokens.segment_ids != 0]
        np.testing.assert_array_equal(found.counts_LE[layer], np.bincount(real.ravel(), minlength=4))


def test_a_dense_model_has_neither_load_nor_routes() -> None:
    found = measure(Transformer(tiny_config(dense=True)), packed_rows(NUM_ROWS), np.array([0]), precision="fp32")
    assert found.counts_LE.size == found.routes_STLK.size == 0
    assert found.nats_RT.any()
