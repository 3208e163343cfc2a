"""The index against its definition, and what it must do for any two nights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.rows.drift import FEATURES, Drift, FeatureDrift, contributions, drift
from data.rows.statistics import Fates, NightStatistics, Statistics, measure
from schemas.domain import DOMAINS
from tests.reference.drift import plain_psi, reference_psi

repeatable = settings(max_examples=60)
sizes = st.lists(st.integers(0, 10_000), min_size=5, max_size=5)
rows = st.integers(0, 100_000)


def psi_of(tonight: Sequence[float], reference: Sequence[float], rows: tuple[int, int]) -> float:
    return float(contributions(tonight, reference, rows).sum())


@repeatable
@given(sizes, sizes, rows, rows)
def test_the_index_is_its_definition(p: list[int], q: list[int], n: int, m: int) -> None:
    parts = contributions(p, q, (n, m))
    assert parts.sum() == pytest.approx(reference_psi(p, q, (n, m)), abs=1e-12)
    assert (parts >= 0).all()
    assert psi_of(p, q, (n, m)) == psi_of(q, p, (m, n)) >= 0


@repeatable
@given(sizes, st.integers(1, 50), rows, rows)
def test_equal_shares_are_no_drift_whatever_their_size(p: list[int], factor: int, n: int, m: int) -> None:
    assert psi_of(p, [factor * size for size in p], (n, m)) == pytest.approx(0, abs=1e-12)


@repeatable
@given(sizes.filter(any), sizes.filter(any), st.integers(1, 10**6))
def test_it_grows_with_the_shift(p: list[int], q: list[int], n: int) -> None:
    """Going a tenth of the way at a time from one mix to another."""
    p, q = [size * sum(q) for size in p], [size * sum(p) for size in q]
    path = [psi_of(p, [(10 - step) * a + step * b for a, b in zip(p, q, strict=True)], (n, n)) for step in range(1, 10)]
    assert all(a <= b + 1e-12 for a, b in pairwise(path))
    if p != q:
        assert path[-1] > path[0]


def test_large_samples_give_the_textbook_value() -> None:
    p, q = [0.5, 0.3, 0.2], [0.4, 0.3, 0.3]
    assert plain_psi(p, q) == pytest.approx(0.1 * np.log(1.25) + 0.1 * np.log(1.5))
    assert psi_of(p, q, (10**9, 10**9)) == pytest.approx(plain_psi(p, q), rel=1e-4)


@pytest.mark.parametrize("num_bins", [2, 6, 25])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 10**6), (30, 30), (100, 10**6), (250, 250), (10**4, 10**4)])
def test_samples_of_one_population_are_stable_at_any_size(num_bins: int, n: int, m: int) -> None:
    generator = np.random.default_rng(7)
    shares = 0.7 ** np.arange(num_bins)
    shares /= shares.sum()
    draws = [(generator.multinomial(n, shares), generator.multinomial(m, shares)) for _ in range(60)]
    values = [psi_of(p.tolist(), q.tolist(), (n, m)) for p, q in draws]
    assert np.mean(values) < 0.07
    assert max(values) < 0.25


def test_one_odd_row_is_no_alarm_and_a_thousand_are() -> None:
    assert psi_of([1, 0], [0, 10**6], (1, 10**6)) < 0.1
    assert psi_of([1000, 0], [0, 10**6], (1000, 10**6)) > 1
    assert psi_of([0, 0], [1, 5], (0, 6)) == 0


def source(code: int, text: str, copies: int, turns: int = 0) -> Statistics:
    return measure(pl.Series([text] * copies), pl.Series([turns] * copies), pl.Series([code] * copies, dtype=pl.UInt8))


BASE = {"code": source(0, "x = 1\n" * 20, 400), "talk": source(4, "how are you today", 600, turns=6)}
FATES = {"code": Fates(read=500, kept=400, quarantined=100), "talk": Fates(read=700, kept=600, exact_duplicates=100)}


def night(sources: dict[str, Statistics] | None = None, fates: dict[str, Fates] | None = None) -> NightStatistics:
    return NightStatistics(sources=BASE | (sources or {}), fates=FATES | (fates or {}))


def by_name(found: Drift) -> dict[str, FeatureDrift]:
    return {feature.name: feature for feature in found.features}


def test_a_night_does_not_differ_from_itself() -> None:
    found = drift(night(), night())
    assert tuple(feature.name for feature in found.features) == FEATURES
    assert all(feature.psi == 0 and feature.reading == "stable" for feature in found.features)
    assert found.over(0) == []
    assert (found.new_sources, found.vanished_sources) == ((), ())


CHANGES: list[tuple[str, dict[str, Any], str]] = [
    ("source_mix", {"sources": {"talk": Statistics(), "chat": BASE["talk"]}}, "chat"),
    ("domain_mix", {"sources": {"code": source(2, "x = 1\n" * 20, 400)}}, DOMAINS[0]),
    ("row_length", {"sources": {"talk": source(4, "how are you today " * 60, 600, turns=6)}}, "1,024 to 2,047 bytes"),
    ("script", {"sources": {"talk": source(4, "今天你好", 600, turns=6)}}, "0.30 to 0.35 characters per byte"),
    ("lines", {"sources": {"code": source(0, "x = 1 " * 20, 400)}}, "16 to 31 lines"),
    ("turns", {"sources": {"talk": source(4, "how are you today", 600, turns=2)}}, "2 to 3 turns"),
    ("white_space", {"sources": {"code": source(0, "x=1xx\n" * 20, 400)}}, "50% to 55% white space"),
    ("digits", {"sources": {"talk": source(4, "how are you 12345", 600, turns=6)}}, "0% to 5% digits"),
    ("duplicate_share", {"fates": {"talk": Fates(read=1200, kept=600, near_duplicates=600)}}, "duplicates"),
    ("quarantined_share", {"fates": {"code": Fates(read=1400, kept=400, quarantined=1000)}}, "quarantined"),
]


@pytest.mark.parametrize(("name", "change", "moved"), CHANGES, ids=[change[0] for change in CHANGES])
def test_each_feature_sees_its_own_change(name: str, change: dict[str, Any], moved: str) -> None:
    feature = by_name(drift(night(**change), night()))[name]
    assert feature.psi > 0.25
    assert feature.reading == "different"
    assert feature.tonight != feature.reference
    assert feature.bin == moved


def test_shares_are_of_the_rows_read() -> None:
    feature = by_name(drift(night(fates={"talk": Fates(read=1200, kept=600, near_duplicates=600)}), night()))
    assert feature["duplicate_share"].tonight == pytest.approx(600 / 1700)
    assert feature["duplicate_share"].reference == pytest.approx(100 / 1200)
    assert feature["quarantined_share"].tonight == pytest.approx(100 / 1700)
    assert feature["duplicate_share"].psi == pytest.approx(reference_psi([600, 1100], [100, 1100], (1700, 1200)))


def test_all_features_are_tried() -> None:
    assert tuple(name for name, _, _ in CHANGES) == FEATURES


def test_messages_name_feature_value_limit_and_cause() -> None:
    found = drift(night(fates={"code": Fates(read=1400, kept=400, quarantined=1000)}), night())
    quarantined = by_name(found)["quarantined_share"]
    first = found.over(0.25)[0]
    assert found.worst == quarantined
    for part in ("quarantined_share", f"{quarantined.psi:.3f}", "0.25", "quarantined: 47.6%", "8.3%"):
        assert part in first
    assert found.over(quarantined.psi) == []
    values = [by_name(found)[message.split(":")[0]].psi for message in found.over(0)]
    assert values == sorted(values, reverse=True)


def test_sources_that_came_and_went_are_named() -> None:
    """A source all of whose rows were quarantined went as well."""
    tonight = NightStatistics(
        sources={"code": BASE["code"], "new-b": BASE["talk"], "new-a": BASE["code"], "talk": Statistics()},
        fates=FATES | {"talk": Fates(read=9, quarantined=9)},
    )
    found = drift(tonight, night())
    assert found.new_sources == ("new-a", "new-b")
    assert found.vanished_sources == ("talk",)


def test_an_empty_night_can_be_compared() -> None:
    found = drift(NightStatistics(), night())
    assert all(feature.psi == 0 for feature in found.features)
    assert found.vanished_sources == ("code", "talk")


@pytest.mark.parametrize(
    ("psi", "word"), [(0.0999, "stable"), (0.1, "shifted"), (0.25, "shifted"), (0.2501, "different")]
)
def test_the_usual_reading(psi: float, word: str) -> None:
    assert FeatureDrift(name="x", psi=psi, bin="b", tonight=0, reference=0).reading == word


def test_drift_survives_its_file() -> None:
    found = drift(night(sources={"more": BASE["code"]}), night())
    assert Drift.from_dict(json.loads(json.dumps(found.as_dict()))) == found
