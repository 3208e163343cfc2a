"""Statistics are what plain counting finds, and merge to the same whole however the rows are cut."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.rows.statistics import (
    BINS,
    FORMAT,
    TOTALS,
    Fates,
    NightStatistics,
    Overlap,
    Profile,
    Statistics,
    TokenCount,
    bin_label,
    measure,
    merged,
    rank,
)
from schemas.domain import DOMAINS

repeatable = settings(max_examples=40)
alphabet = st.sampled_from("aé好🙂 \n\t!/09:")
rows = st.lists(
    st.tuples(
        st.one_of(st.text(alphabet, max_size=12), st.sampled_from(["x" * 63, "1 \n" * 70, "好" * 200])),
        st.integers(0, 40),
        st.integers(0, len(DOMAINS) - 1),
    ),
    max_size=9,
)
Row = tuple[str, int, int]


def measured(chunk: list[Row]) -> Statistics:
    texts, turns, domains = zip(*chunk, strict=True) if chunk else ((), (), ())
    return measure(
        pl.Series(texts, dtype=pl.String), pl.Series(turns, dtype=pl.Int64), pl.Series(domains, dtype=pl.UInt8)
    )


def doubling_bin(value: int, num_bins: int) -> int:
    """0 for 0, else one more than how often the value can be halved before it is 1."""
    index = 0
    while value:
        value, index = value // 2, index + 1
    return min(index, num_bins - 1)


def twentieth(part: int, whole: int) -> int:
    """The largest k up to 19 with k/20 of the whole at most the part."""
    return max(k for k in range(20) if k * whole <= 20 * part)


def counted(chunk: list[Row], code: int) -> Profile:
    """The profile of one domain, row by row."""
    histograms = {name: [0] * num_bins for name, num_bins in BINS.items()}
    totals = dict.fromkeys(TOTALS, 0)
    for text, turns, domain in chunk:
        if domain != code:
            continue
        found = {
            "rows": 1, "bytes": len(text.encode()), "characters": len(text), "turns": turns,
            "lines": len(text.split("\n")),
            "white_space": sum(c in " \t\n\r\f" for c in text), "digits": sum(c in "0123456789" for c in text),
        }  # fmt: skip
        for name, value in found.items():
            totals[name] += value
        for name in ("bytes", "lines", "turns"):
            histograms[name][doubling_bin(found[name], BINS[name])] += 1
        for name in ("white_space", "digits"):
            histograms[name][twentieth(found[name], found["bytes"]) if text else 0] += 1
        histograms["script"][twentieth(found["characters"], found["bytes"]) - 5 if text else 0] += 1
    return Profile(**totals, histograms={name: tuple(counts) for name, counts in histograms.items()})


@repeatable
@given(rows)
def test_measuring_is_counting(chunk: list[Row]) -> None:
    expected = {DOMAINS[code]: counted(chunk, code) for code in {row[2] for row in chunk}}
    assert measured(chunk) == Statistics(domains=expected)


@repeatable
@given(rows, rows)
def test_a_chunk_is_the_sum_of_its_parts(left: list[Row], right: list[Row]) -> None:
    assert measured(left).merge(measured(right)) == measured(left + right)


@repeatable
@given(rows, rows, rows)
def test_merging_is_associative_and_commutative(a: list[Row], b: list[Row], c: list[Row]) -> None:
    x, y, z = measured(a), measured(b), measured(c)
    assert x.merge(y) == y.merge(x)
    assert x.merge(y).merge(z) == x.merge(y.merge(z)) == merged([z, x, y])
    assert x.merge(Statistics()) == x
    assert json.dumps(x.merge(y).as_dict()) == json.dumps(y.merge(x).as_dict())


@repeatable
@given(st.lists(st.booleans(), max_size=300), st.data())
def test_rank_counts_what_lies_before(mask: list[bool], data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(mask)), min_size=1, max_size=5))
    assert rank(np.array(mask, bool), np.array(places)).tolist() == [sum(mask[:place]) for place in places]


def test_nulls_text_rows_and_slices() -> None:
    texts = pl.Series(["left out", "two\nlines 7", None, "好"])[1:]
    profile = measure(texts, None, pl.Series([0, 0, 0], dtype=pl.UInt8)).domains[DOMAINS[0]]
    assert (profile.rows, profile.bytes, profile.characters, profile.turns) == (3, 14, 12, 0)
    assert (profile.lines, profile.white_space, profile.digits) == (4, 2, 1)
    assert profile.histograms["turns"][0] == 3


def test_long_rows_fall_in_the_last_bin() -> None:
    profile = measured([("x" * (1 << 24), 10_000, 3)]).domains[DOMAINS[3]]
    assert profile.histograms["bytes"][-1] == profile.histograms["turns"][-1] == 1
    assert profile.bytes == 1 << 24


def test_an_unknown_domain_is_refused() -> None:
    with pytest.raises(ValueError, match=f"domain {len(DOMAINS)} is none of the {len(DOMAINS)}"):
        measured([("x", 0, len(DOMAINS))])


def test_bins_are_named_by_what_they_hold() -> None:
    assert [bin_label("bytes", k) for k in (0, 1, 2, 9, 24)] == [
        "0 bytes", "1 byte", "2 to 3 bytes", "256 to 511 bytes", "8,388,608 bytes and more",
    ]  # fmt: skip
    assert bin_label("script", 0) == "0.25 to 0.30 characters per byte"
    assert bin_label("white_space", 19) == "95% to 100% white space"


@pytest.mark.parametrize("name", ["bytes", "lines", "turns"])
def test_every_size_has_the_bin_that_names_it(name: str) -> None:
    for value in (0, 1, 2, 3, 4, 100, 511, 512):
        words = bin_label(name, min(value.bit_length(), BINS[name] - 1)).replace(",", "").split()
        low, high = int(words[0]), int(words[2]) if words[1] == "to" else None
        assert low <= value
        assert value <= high if high is not None else (value == low or words[-1] == "more")


def test_edges_change_only_with_the_format() -> None:
    """Stored statistics carry no edges; whoever moves one must count FORMAT up, and this line with it."""
    assert (FORMAT, BINS) == (
        1, {"bytes": 25, "lines": 18, "turns": 10, "script": 15, "white_space": 20, "digits": 20},
    )  # fmt: skip


fates = st.builds(
    lambda kept, exact, near, rules: Fates(
        read=kept + exact + near + sum(rules.values()), kept=kept, exact_duplicates=exact, near_duplicates=near,
        quarantined=sum(rules.values()), rules=rules,
    ),
    *[st.integers(0, 99)] * 3, st.dictionaries(st.sampled_from("xyz"), st.integers(1, 9)),
)  # fmt: skip


@repeatable
@given(fates, fates, fates)
def test_fates_add_up_and_go_on_adding_up(a: Fates, b: Fates, c: Fates) -> None:
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(Fates()) == a
    assert a.merge(b).unaccounted == 0
    assert a.merge(b).quarantined == sum(a.merge(b).rules.values())
    assert dataclasses.replace(a, read=a.read + 3).unaccounted == 3


def night(**changes: Any) -> NightStatistics:
    first, second = measured([("one", 0, 0), ("two\n2", 0, 4)]), measured([("hi\nyes", 2, 4)])
    return NightStatistics(
        sources={"text": first, "talk": second},
        fates={"text": Fates(read=5, kept=2, near_duplicates=3), "talk": Fates(read=1, kept=1), "bad": Fates(read=0)},
        **changes,
    )


FILLED: dict[str, Any] = {
    "tokens": {"text": {"code": TokenCount(tokens=2, bytes=3)}, "talk": {"code": TokenCount(tokens=5, bytes=9)}},
    "vocabulary_coverage": {"all": 0.5}, "slots_filled": {"chat_train": 0.99}, "dispersion": {"code": 1.1},
    "contamination": {"talk": Overlap(documents=8, overlapping=2)},
}  # fmt: skip


@pytest.mark.parametrize("changes", [{}, FILLED, {"tokens": {}, "contamination": {}}])
def test_a_night_survives_its_file(changes: dict[str, Any]) -> None:
    before = night(**changes)
    assert NightStatistics.from_dict(json.loads(json.dumps(before.as_dict()))) == before


def test_sums_of_a_night() -> None:
    whole = night(**FILLED)
    assert whole.names == ["bad", "talk", "text"]
    assert whole.fate == Fates(read=6, kept=3, near_duplicates=3)
    assert whole.by_domain == whole.sources["text"].merge(whole.sources["talk"])
    assert whole.by_domain.total.bytes == len("one" + "two\n2" + "hi\nyes")
    assert whole.tokens_by_domain() == {"code": TokenCount(tokens=7, bytes=12)}
    assert night().tokens_by_domain() == {}
    assert whole.contamination and whole.contamination["talk"].share == 0.25


def test_files_of_other_formats_are_refused_with_a_cure() -> None:
    stored = json.loads(json.dumps(night().as_dict()))
    with pytest.raises(ValueError, match=r"format 99.*reads 1.*validate"):
        NightStatistics.from_dict(stored | {"format": 99})
    next(iter(stored["sources"]["text"]["domains"].values()))["histograms"]["lines"].append(0)
    with pytest.raises(ValueError, match="lines has 19 bins, expected 18"):
        NightStatistics.from_dict(stored)
