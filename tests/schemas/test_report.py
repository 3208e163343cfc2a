from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.jsonl import Fault
from schemas.pretrain import PretrainRow, check_texts
from schemas.report import EXAMPLES_PER_RULE, FailureReport, faults_of

many_rules = st.lists(st.integers(0, 13).map("rule_{}".format), max_size=60)
few_rules = st.lists(st.sampled_from(["rule_a", "rule_b"]), max_size=20)


def report_of(rules: list[str]) -> FailureReport:
    report = FailureReport()
    for number, rule in enumerate(rules, start=1):
        report.add("a.jsonl", number, Fault(rule, f"detail {number}"))
    return report


@given(st.one_of(many_rules, few_rules))
def test_counts_are_exact_and_examples_bounded(rules: list[str]) -> None:
    content = report_of(rules).as_dict()
    assert list(content) == [rule for rule, _ in Counter(rules).most_common()]
    for rule, entry in content.items():
        places = [number for number, seen in enumerate(rules, start=1) if seen == rule]
        examples = [f"a.jsonl:{n} detail {n}" for n in places[:EXAMPLES_PER_RULE]]
        assert entry == {"count": len(places), "examples": examples}


def test_a_report_of_nothing_is_empty() -> None:
    assert FailureReport().as_dict() == {}


def test_the_detail_of_a_huge_bad_text_is_small() -> None:
    fault = check_texts(["\x00" * 100_000]).faults[0]
    assert len(fault.detail) < 1_000


def test_faults_are_found_by_row_column_not_by_position() -> None:
    frame = pl.DataFrame({"row": [7, 3, 9], "text": ["fine", "", None]})
    assert {row: fault.rule for row, fault in faults_of(PretrainRow, frame).items()} == {
        3: "text_blank", 9: "text_missing",
    }  # fmt: skip


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"row": [0]}),
        pl.DataFrame({"row": [0], "text": [1]}),
        pl.DataFrame({"row": [0], "text": ["a"], "extra": [1]}),
    ],
    ids=["column missing", "wrong type", "column too many"],
)
def test_a_frame_of_another_shape_is_a_mistake_of_the_program(frame: pl.DataFrame) -> None:
    with pytest.raises(TypeError, match="PretrainRow cannot check this frame"):
        faults_of(PretrainRow, frame)
