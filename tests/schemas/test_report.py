from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.jsonl import Fault
from schemas.pretrain import PretrainRow, check_pretrain
from schemas.report import EXAMPLES_PER_RULE, FailureReport, faults_of

many_rules = st.lists(st.integers(0, 13).map("rule_{}".format), max_size=60)
few_rules = st.lists(st.sampled_from(["rule_a", "rule_b"]), max_size=20)


def report_of(rules: list[str]) -> FailureReport:
    report = FailureReport()
    for number, rule in enumerate(rules, start=1):
        report.add("a.jsonl", number, Fault(rule, f"detail {number}"))
    return report


@given(st.one_of(many_rules, few_rules), st.integers(1, 12))
def test_counts_are_exact_and_examples_bounded(rules: list[str], max_rules: int) -> None:
    report = report_of(rules)
    told = report.as_dict()
    assert {rule: entry["count"] for rule, entry in told.items() if isinstance(entry, dict)} == Counter(rules)
    for rule in told:
        places = [number for number, seen in enumerate(rules, start=1) if seen == rule]
        assert report.examples[rule] == [f"a.jsonl:{n} detail {n}" for n in places[:EXAMPLES_PER_RULE]]

    lines = report.as_text(max_rules).splitlines()
    hidden = len(set(rules)) - max_rules
    assert len(lines) == min(len(set(rules)), max_rules) + (hidden > 0)
    assert not hidden > 0 or f"{hidden} more rules" in lines[-1]
    shown = [int(line.split()[0]) for line in lines[: min(len(set(rules)), max_rules)]]
    assert shown == sorted(Counter(rules).values(), reverse=True)[:max_rules]


def test_text_names_rule_count_and_place() -> None:
    report = FailureReport()
    for line in range(1, 1235):
        report.add("b.jsonl", line, Fault("text_blank", "text: ''"))
    report.add("b.jsonl", 9_999, Fault("not_json", "unexpected end"))
    assert len(report.examples["text_blank"]) == EXAMPLES_PER_RULE
    assert report.as_text().splitlines() == [
        "   1,234  text_blank  e.g. b.jsonl:1 text: ''",
        "       1  not_json  e.g. b.jsonl:9999 unexpected end",
    ]


def test_a_report_of_nothing_is_empty() -> None:
    assert (FailureReport().as_dict(), FailureReport().as_text()) == ({}, "")


def test_the_detail_of_a_huge_bad_text_is_small() -> None:
    fault = check_pretrain([{"text": "\x00" * 100_000}]).faults[0]
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
