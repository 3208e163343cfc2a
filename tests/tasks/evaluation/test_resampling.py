"""The bootstrap against one resample at a time, and its bounds against what they promise."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation import resampling
from tasks.evaluation.resampling import SMALL_STRATUM_CLUSTERS, cap_bytes, differences, paired
from tasks.recipes.stage_configs import PromoteConfig
from tests.reference import promotion
from tests.reference.promotion import Document
from tests.tasks.rows import scored_documents

DOCUMENTS = st.lists(
    st.builds(
        Document,
        cluster=st.integers(0, 40).map(lambda number: f"{number:02}"),
        source=st.sampled_from(["books", "web", "rare"]),
        bits=st.floats(-1e4, 1e4),
        num_bytes=st.integers(1, 10**6),
    ),
    min_size=1, max_size=60,
)  # fmt: skip


def table_of(documents: list[Document]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "cluster": [d.cluster for d in documents],
            "source": [d.source for d in documents],
            "domain": "pretrain/en",
            "bits": [d.bits for d in documents],
            "num_bytes": [d.num_bytes for d in documents],
        }
    )


@settings(max_examples=30, deadline=None)
@given(DOCUMENTS, st.floats(0.005, 1), st.integers(0, 9), st.integers(1, 300))
def test_a_resample_is_that_of_one_cluster_at_a_time_in_chunks_of_any_size(
    documents: list[Document], max_share: float, seed: int, chunk: int
) -> None:
    config = PromoteConfig(resamples=100, seed=seed, max_cluster_share=max_share)
    with patch.object(resampling, "SMALL_STRATUM_CLUSTERS", 5):
        (found,) = differences(table_of(documents), (), config)
        with patch.object(resampling, "DRAWS_PER_CHUNK", chunk):
            (again,) = differences(table_of(documents), (), config)
    assert (found.drawn == again.drawn).all()
    slowly = promotion.resampled(documents, max_share, 5, 100, seed)
    np.testing.assert_allclose(found.drawn, slowly, rtol=1e-5, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=50), st.floats(0.001, 1))
def test_no_cluster_counts_for_more_than_its_share(sizes: list[int], max_share: float) -> None:
    cap, share = cap_bytes(np.array(sizes), max_share), max(max_share, 3 / len(sizes))
    counted = np.minimum(sizes, cap)
    assert counted.max() <= share * counted.sum() * (1 + 1e-9) or len(sizes) <= 3
    weights = promotion.trimmed({str(number): size for number, size in enumerate(sizes)}, max_share)
    np.testing.assert_allclose(counted, [size * weights[str(number)] for number, size in enumerate(sizes)], rtol=1e-6)


def test_the_sums_are_exact_in_any_order() -> None:
    """Whole numbers below 2^53: nothing is rounded, whatever the machine adds first."""
    rng = np.random.default_rng(0)
    num_bytes = np.ceil(rng.lognormal(6, 1, 3_000))
    pair = [scored_documents(num_bytes * rng.lognormal(0, 0.2, 3_000), num_bytes) for _ in range(2)]
    table = paired(*pair)
    (stratum,) = resampling.strata_of(resampling.clusters_of(table, 0.02), [resampling.OVERALL])
    assert (stratum.sums == np.round(stratum.sums)).all()
    assert np.abs(stratum.sums).sum() * len(stratum.sums) ** 0.5 < 2**53


def test_near_duplicates_move_together() -> None:
    """Ten copies of each of 40 documents say no more than the 40."""
    rng = np.random.default_rng(0)
    documents = [Document(f"{number:02}", "web", bits, 100) for number, bits in enumerate(rng.normal(0, 5, 40))]
    (few,), (many,) = (
        differences(table_of(documents * copies), (), PromoteConfig(resamples=200)) for copies in (1, 10)
    )
    assert many.clusters == few.clusters == 40
    assert many.error == pytest.approx(few.error)
    np.testing.assert_allclose(many.drawn, few.drawn)


def test_sources_are_drawn_apart_and_small_ones_together() -> None:
    """Two sources that differ by a constant have no error; without strata their shares would vary."""
    documents = [Document(f"{s}{n:02}", s, 10.0 * (s == "web"), 100) for s in ("books", "web") for n in range(30)]
    (found,) = differences(table_of(documents), (), PromoteConfig(resamples=100))
    assert found.error == pytest.approx(0, abs=1e-9) and np.ptp(found.drawn) == pytest.approx(0, abs=1e-9)
    assert found.freedom == 58
    few = [replace(document, source="rare") if n % 30 == 0 else document for n, document in enumerate(documents)]
    assert SMALL_STRATUM_CLUSTERS > 2
    (found,) = differences(table_of(few), (), PromoteConfig(resamples=100))
    assert found.freedom == 57


def test_a_cluster_of_two_sources_is_drawn_once_with_that_of_most_bytes() -> None:
    documents = [Document(f"{n:02}", "web", 1.0, 100) for n in range(30)]
    table = table_of([*documents, Document("00", "books", 1.0, 300)])
    clusters = resampling.clusters_of(table, 1.0)
    assert dict(clusters.select("cluster", "stratum").rows())["00"] == ""
    assert len(clusters) == 30


def test_domains_are_of_the_same_resamples() -> None:
    rng = np.random.default_rng(0)
    num_bytes = np.full(60, 100.0)
    tables = [
        scored_documents(num_bytes * rng.lognormal(0, 0.1, 60), num_bytes).with_columns(
            domain=pl.Series(["en", "zh"] * 30)
        )
        for _ in range(2)
    ]
    overall, en, zh = differences(paired(*tables), ["pretrain/en", "pretrain/zh"], PromoteConfig(resamples=300))
    assert (en.clusters, zh.clusters, overall.clusters) == (30, 30, 60)
    assert overall.value == pytest.approx((en.value + zh.value) / 2)
    assert np.corrcoef(overall.drawn, en.drawn + zh.drawn)[0, 1] > 0.95


def test_of_one_cluster_nothing_can_be_told() -> None:
    (found,) = differences(table_of([Document("00", "web", -5.0, 10)]), (), PromoteConfig(resamples=100))
    assert (found.value, found.lower(0.05), found.upper(0.05)) == (-0.5, -np.inf, np.inf)


@pytest.mark.parametrize("alpha", [0.1, 0.01])
def test_the_bound_of_a_large_sample_is_the_normal_one(alpha: float) -> None:
    """To a quarter of a standard error, twice what 2,000 resamples leave uncertain at 1 %; never inside Student's."""
    from statistics import NormalDist

    rng = np.random.default_rng(0)
    num_bytes = np.ceil(rng.uniform(50, 500, 2_000))
    documents = [
        Document(f"{n:04}", "web", b * -0.02 + rng.normal(0, 30), int(b)) for n, b in enumerate(num_bytes.tolist())
    ]
    bits = np.array([document.bits for document in documents])
    (found,) = differences(table_of(documents), (), PromoteConfig(resamples=2_000))
    error = promotion.standard_error(bits, num_bytes)
    assert found.error == pytest.approx(error, rel=0.01)
    expected = found.value + NormalDist().inv_cdf(1 - alpha) * error
    assert expected <= found.upper(alpha) < expected + 0.25 * error
    assert found.lower(alpha) == pytest.approx(2 * found.value - found.upper(alpha), abs=0.25 * error)


def test_the_bounds_are_functions_of_data_and_seed() -> None:
    rng = np.random.default_rng(0)
    table = table_of([Document(f"{n:02}", "web", rng.normal(0, 5), 100) for n in range(50)])
    drawn = [differences(table, (), PromoteConfig(resamples=100, seed=seed))[0].drawn for seed in (1, 1, 2)]
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()


def test_a_text_that_is_a_conversation_too_is_two_documents() -> None:
    nats, num_bytes = np.array([3.0, 5.0]), np.array([10, 20])
    tables = [
        pl.concat([scored_documents(nats * a, num_bytes), scored_documents(nats * b, num_bytes, kind="chat")])
        for a, b in ((2, 4), (1, 1))
    ]
    table = paired(*tables)
    assert sorted(table["bits"] * np.log(2)) == pytest.approx([3.0, 5.0, 9.0, 15.0])
    assert sorted(table["num_bytes"]) == [10, 10, 20, 20]
