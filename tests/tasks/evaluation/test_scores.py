"""Intervals of single models: they hold the figure, narrow with more text, widen where documents come in clusters."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from tasks.evaluation.scores import bpb_intervals, share_interval
from tests.reference.promotion import standard_error
from tests.tasks.rows import scored_documents

RNG = np.random.default_rng(0)
NUM_BYTES = np.ceil(RNG.lognormal(5, 0.8, 400))
NATS = NUM_BYTES * RNG.lognormal(0, 0.2, 400)


def documents() -> pl.DataFrame:
    chat = scored_documents(NATS[:100], NUM_BYTES[:100], kind="chat").with_columns(source=pl.lit("talk"))
    wordless = scored_documents(np.array([9.0]), np.array([0]), prefix="w")
    both = pl.concat([scored_documents(NATS, NUM_BYTES), chat, wordless])
    return both.with_columns(
        domain=pl.when(pl.int_range(pl.len()) % 4 == 0).then(pl.lit("code")).otherwise(pl.lit("en"))
    )


def test_each_slice_has_its_bits_per_byte_inside_an_interval() -> None:
    table = documents()
    entries = {(entry["by"], entry["name"]): entry for entry in bpb_intervals(table)}
    kinds, domains = ("chat", "pretrain"), ("code", "en")
    slices = {("slice", f"{kind}.{domain}") for kind in kinds for domain in domains}
    plain = {("all", "all"), ("source", "talk"), ("source", "text")}
    named = {("kind", kind) for kind in kinds} | {("domain", domain) for domain in domains}
    assert entries.keys() == plain | named | slices
    for (by, name), entry in entries.items():
        column = {"slice": pl.concat_str("kind", pl.lit("."), "domain"), "all": pl.lit("all")}.get(by, pl.col(by))
        part = table.filter(column == name, pl.col("num_bytes") > 0)
        assert entry["value"] == pytest.approx(part["nats"].sum() / math.log(2) / part["num_bytes"].sum())
        assert entry["lower"] < entry["value"] < entry["upper"]
        assert (entry["documents"], entry["num_bytes"]) == (len(part), part["num_bytes"].sum())
    assert bpb_intervals(table) == bpb_intervals(table), "the same bits every time"


def test_the_interval_of_many_documents_is_the_normal_one() -> None:
    overall, *_ = bpb_intervals(scored_documents(NATS, NUM_BYTES))
    bits = NATS / math.log(2)
    expected, ratio = 1.96 * standard_error(bits, NUM_BYTES), bits.sum() / NUM_BYTES.sum()
    assert overall["lower"] == pytest.approx(ratio - expected, abs=0.25 * expected)
    assert overall["upper"] == pytest.approx(ratio + expected, abs=0.25 * expected)


def test_the_luck_of_one_source_is_not_that_of_another() -> None:
    """Sources of different scores are drawn apart, as where the gate looks: what lies between them is no luck."""
    hard = scored_documents(3 * NATS[:200], NUM_BYTES[:200], prefix="h").with_columns(source=pl.lit("hard"))
    both = pl.concat([scored_documents(NATS[200:], NUM_BYTES[200:]), hard])
    width = {name: entry["upper"] - entry["lower"] for name, entry in (
        ("apart", bpb_intervals(both)[0]), ("together", bpb_intervals(both.with_columns(source=pl.lit("one")))[0]),
    )}  # fmt: skip
    assert width["apart"] < 0.8 * width["together"]


def test_documents_of_one_cluster_count_as_one() -> None:
    once = scored_documents(NATS[:50], NUM_BYTES[:50]).with_columns(domain=pl.lit("en"), cluster=pl.col("row_id"))
    copies = pl.concat([once.with_columns(row_id=f"{n}-" + pl.col("row_id"), cluster=pl.col("row_id")) for n in "abc"])
    single, apart, together = (
        bpb_intervals(t)[0] for t in (once, copies.with_columns(cluster=pl.col("row_id")), copies)
    )
    width = {
        name: e["upper"] - e["lower"] for name, e in (("apart", apart), ("single", single), ("together", together))
    }
    assert width["together"] == pytest.approx(width["single"]) and width["apart"] < 0.75 * width["single"]
    assert (together["documents"], together["clusters"]) == (150, 50)


def test_one_cluster_alone_has_no_interval() -> None:
    alone = scored_documents(NATS[:1], NUM_BYTES[:1]).with_columns(domain=pl.lit("en"))
    assert (bpb_intervals(alone)[0]["lower"], bpb_intervals(alone)[0]["upper"]) == (None, None)


@pytest.mark.parametrize(("successes", "bounds"), [(0, (0.0, 0.0370)), (29, (0.2101, 0.3854)), (100, (0.9630, 1.0))])
def test_a_share_has_wilson_s_bounds(successes: int, bounds: tuple[float, float]) -> None:
    entry = share_interval("eval/choice_accuracy", successes / 100, 100)
    assert (entry["lower"], entry["upper"]) == pytest.approx(bounds, abs=1e-4)
