"""Load of the experts and drift of routes: measured where it can be, and said why not where it cannot."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.tokens.packing import PackedTokens
from tasks.evaluation.measures.experts import (
    drift_figures,
    drift_of,
    load_by_layer,
    route_drift,
    routes_table,
    sampled_rows,
)
from tasks.evaluation.measures.metrics import combined_metrics
from tasks.home.contents.scores import ROUTES

EXPERTS, TOKENS = 4, 60


def random_routes(seed: int, layers: int = 2, top_k: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.argsort(rng.random((TOKENS, layers, EXPERTS)), axis=-1)[..., :top_k].astype(np.uint16)


def evaluation(folder: Path, routes_NLK: np.ndarray, ids: np.ndarray | None = None) -> Path:
    """The folder of an evaluation that kept these routes."""
    folder.mkdir()
    shape = (6, 10)
    row_ids = (np.arange(TOKENS) if ids is None else ids).reshape(shape).astype(np.uint16)
    packed = PackedTokens(row_ids, row_ids.astype(np.int32), np.ones(shape, dtype=np.uint16), "")
    routes_table(packed, routes_NLK.reshape(*shape, *routes_NLK.shape[1:])).write_parquet(folder / ROUTES)
    return folder


def test_dead_experts_and_evenness_by_layer() -> None:
    layers = load_by_layer(np.array([[25, 25, 25, 25], [100, 0, 0, 0], [48, 48, 2, 2]]))
    assert layers["dead"].to_list() == [0, 3, 2], "2 of 25 is under a tenth"
    assert layers["entropy"].to_list() == pytest.approx([1, 0, 0.6212], abs=1e-4)
    assert layers["max_ratio"].to_list() == pytest.approx([1, 4, 1.92])
    found = combined_metrics({"layer_dead": layers["dead"].to_list(), "layer_entropy": layers["entropy"].to_list()})
    assert found == {"dead_experts": 5, "load_entropy": 0}


def test_a_dense_model_has_no_health() -> None:
    assert load_by_layer(np.zeros((0, 0), dtype=np.int64)).is_empty()


def test_a_single_expert_has_an_even_load() -> None:
    assert load_by_layer(np.array([[7]])).rows() == [(0, 0, 1.0, 1.0)]


def test_routes_differ_where_the_set_differs_and_not_its_order() -> None:
    routes = random_routes(0)
    turned = routes[:, :, ::-1].copy()
    assert drift_of(routes, turned, EXPERTS).share == 0
    turned[:15, 1] = (turned[:15, 1] + 1) % EXPERTS
    expected = np.mean([set(a) != set(b) for a, b in zip(routes[:, 1], turned[:, 1], strict=True)])
    drift = drift_of(routes, turned, EXPERTS)
    assert drift.share_by_layer == pytest.approx((0, expected)) and drift.worst_layer == 1
    assert drift.share == pytest.approx(expected / 2)


def test_a_renaming_of_experts_is_no_drift_once_they_are_renamed_back() -> None:
    routes = random_routes(1)
    drift = drift_of(np.array([2, 0, 3, 1], dtype=np.uint16)[routes], routes, EXPERTS)
    assert drift.renamed_share == 0 < drift.share
    assert drift.chance_share == pytest.approx(5 / 6)


def test_the_drift_of_two_evaluations_is_a_figure_and_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nightschool")
    one, other = (evaluation(tmp_path / name, random_routes(seed)) for name, seed in (("a", 0), ("b", 1)))
    drift = route_drift(one, other, EXPERTS)
    assert not isinstance(drift, str)
    assert drift_figures(one, other, EXPERTS) == {"eval/route_drift": drift.share}
    assert f"{drift.share:.1%} of routes differ from the champion's on 60 tokens" in caplog.text


@pytest.mark.parametrize(
    ("layers", "ids", "told"),
    [(3, None, "3 x 2 and 2 x 2 layers and experts a token"), (2, np.arange(TOKENS)[::-1], "asked other tokens")],
)
def test_where_routes_do_not_compare_it_says_why(
    layers: int, ids: np.ndarray | None, told: str, tmp_path: Path
) -> None:
    one, other = evaluation(tmp_path / "a", random_routes(0, layers), ids), evaluation(tmp_path / "b", random_routes(1))
    assert told in str(route_drift(one, other, EXPERTS))
    assert drift_figures(one, other, EXPERTS) == {}
    (other / ROUTES).unlink()
    assert "dense" in str(route_drift(one, other, EXPERTS))


def test_padding_has_no_routes_and_sampled_rows_are_a_function_of_their_number() -> None:
    ids, segments = np.array([[5, 6, 0]]), np.array([[1, 1, 0]], dtype=np.uint16)
    table = routes_table(PackedTokens(ids, ids, segments, ""), np.arange(12).reshape(1, 3, 2, 2))
    assert table["id"].to_list() == [5, 6]
    assert table.schema["experts"] == pl.Array(pl.UInt16, (2, 2))
    assert sampled_rows(3).tolist() == [0, 1, 2] and sampled_rows(0).size == 0
    assert len(sampled_rows(1_000)) == 16 and sampled_rows(1_000)[-1] == 999
