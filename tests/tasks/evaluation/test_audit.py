"""The audit slice: a fixed share of clusters that decide nothing, and what a year's gains are worth there."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tasks.evaluation.audit import apart, audit_figures, audit_gap, is_audited
from tasks.evaluation.past import PastDecision
from tests.tasks.rows import scored_documents

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def documents(number: int, kind: str = "pretrain") -> pl.DataFrame:
    return scored_documents(np.arange(1.0, number + 1), np.full(number, 10), kind=kind)


def test_a_share_of_the_clusters_is_set_apart_for_ever_and_nothing_is_lost() -> None:
    many = documents(2_000)
    gate, audited = apart(many, 0.1)
    assert 0.07 < len(audited) / 2_000 < 0.13
    assert sorted([*gate["row_id"], *audited["row_id"]]) == sorted(many["row_id"])
    fewer_gate, fewer = apart(many.head(500).reverse(), 0.1)
    assert set(fewer["row_id"]) <= set(audited["row_id"]) and set(fewer_gate["row_id"]) <= set(gate["row_id"])
    assert not len(apart(many, 0.0)[1])
    assert set(audited["row_id"]) <= set(apart(many, 0.3)[1]["row_id"]), "a larger share holds the smaller one"


def test_a_cluster_is_on_one_side() -> None:
    shared = documents(300).with_columns(cluster=pl.Series([f"{n // 3:016x}{0:016x}" for n in range(300)]))
    gate, audited = apart(shared, 0.3)
    assert len(audited) and not set(gate["cluster"]) & set(audited["cluster"])


def test_a_kind_whose_every_cluster_would_go_keeps_them() -> None:
    names = pl.Series([f"{number:016x}{0:016x}" for number in range(200)])
    chosen = names.filter(is_audited(names, 0.5))[0]
    alone = documents(1, "chat").with_columns(cluster=pl.lit(chosen))
    gate, audited = apart(pl.concat([alone, documents(50)]), 0.5)
    assert gate.filter(kind="chat").height == 1 and audited.filter(kind="chat").height == 0
    assert audited.height > 0


def test_the_figure_is_bits_per_byte_and_absent_without_documents() -> None:
    assert audit_figures(documents(3)) == {"eval/audit_bpb": pytest.approx(6 / math.log(2) / 30)}
    assert audit_figures(documents(3).clear()) == {}


def test_the_gap_is_of_the_promotions_of_a_year_that_have_both_scores() -> None:
    def decision(days: int, promoted: bool, gate: float, audit: float | None) -> PastDecision:
        at = NOW - timedelta(days=days)
        return PastDecision(at=at, promoted=promoted, alpha=0.0, difference_bpb=gate, audit_difference_bpb=audit)

    past = [
        decision(400, True, -9.0, 0.0), decision(300, True, -0.03, -0.02), decision(200, False, -9.0, 9.0),
        decision(100, True, -0.02, None), decision(1, True, -0.01, -0.005),
    ]  # fmt: skip
    gap = audit_gap(past, NOW)
    assert (gap.promotions, gap.gained_bpb, gap.audit_gained_bpb) == (2, pytest.approx(0.04), pytest.approx(0.025))
    assert gap.gap_bpb == pytest.approx(0.015)
    assert "2 promotions of the last 365 days gained +0.0400" in gap.sentence and "+0.0150" in gap.sentence
    assert "no promotion of the last year" in audit_gap([], NOW).sentence
