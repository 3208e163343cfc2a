from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.adapters import check_rows
from schemas.report import Checked
from tests.reference.rows import is_good_text

Rows = list[dict[str, object]]


def check_pretrain(rows: Rows) -> Checked:
    return check_rows(rows, "pretrain", "minimind")


texts = st.one_of(
    st.text(max_size=6),
    st.text(alphabet="ab\ufffd", min_size=15, max_size=45),
    st.text(alphabet="a \t\n\x0b\x0c\r\x00\x1f\x7f\x85\xa0é", max_size=4),
    st.none(),
    st.integers(),
    st.lists(st.text()),
)
rows = st.lists(st.one_of(st.fixed_dictionaries({"text": texts}, optional={"source": st.text()}), st.just({})))

FAULTS = [
    ({}, "text_missing"),
    ({"Text": "a"}, "text_missing"),
    ({"text": None}, "text_missing"),
    ({"text": 5}, "text_missing"),
    ({"text": ["a"]}, "text_missing"),
    ({"text": ""}, "text_blank"),
    ({"text": " \t\r\n\u3000\xa0"}, "text_blank"),
    *(({"text": f"a{chr(code)}b"}, "text_control_characters") for code in (0, 8, 11, 14, 31, 127)),
    ({"text": "\ufffd"}, "text_undecodable"),
    ({"text": "\ufffd" * 2 + "a" * 37}, "text_undecodable"),
    ({"text": "\ufffd" * 2 + "学" * 37}, "text_undecodable"),
]
GOOD = [
    "a",
    "  indented",
    "tab\tline\nfeed\x0cform\r\n",
    "naïve 🙂 学而时习之",
    "a\u200b",
    "\x85 and \xa0",
    "\ufffd" * 2 + "学" * 38,
]


@pytest.mark.parametrize(("row", "rule"), FAULTS)
def test_a_bad_row_is_named(row: dict[str, object], rule: str) -> None:
    checked = check_pretrain([{"text": "good"}, row])
    assert checked.faults.keys() == {1}
    assert checked.faults[1].rule == rule
    assert checked.faults[1].detail.startswith("text: ")
    assert checked.good.rows() == [(0, "good")]


@pytest.mark.parametrize("text", GOOD)
def test_a_good_text_passes_unchanged_whatever_else_the_row_holds(text: str) -> None:
    checked = check_pretrain([{"text": text, "source": "web", "score": 1.5, "tags": [None]}])
    assert checked.faults == {}
    assert checked.good.rows() == [(0, text)]


@given(rows)
def test_every_row_is_good_or_faulty_as_the_plain_predicate_says(rows: Rows) -> None:
    checked = check_pretrain(rows)
    expected = [(index, row["text"]) for index, row in enumerate(rows) if is_good_text(row.get("text"))]
    assert checked.good.rows() == expected
    assert checked.faults.keys() == set(range(len(rows))) - {index for index, _ in expected}


def test_no_rows_are_no_faults() -> None:
    checked = check_pretrain([])
    assert (checked.good.rows(), checked.faults) == ([], {})
    assert checked.good.columns == ["row", "text"]


def test_control_characters_are_all_but_tab_and_ends_of_lines_and_pages() -> None:
    characters = [chr(code) for code in range(0x800)]
    checked = check_pretrain([{"text": f"a{character}b"} for character in characters])
    expected = [character for character in characters if re.match(r"[\x00-\x08\x0b\x0e-\x1f\x7f]", character)]
    assert [characters[row] for row in checked.faults] == expected
    assert {fault.rule for fault in checked.faults.values()} == {"text_control_characters"}


def test_texts_are_judged_alike_beside_good_ones_and_bad_ones() -> None:
    """Counting replacement characters is left out where there are none."""
    rows: Rows = [{"text": text} for text in (*GOOD, "\ufffd\ufffd", None, "")]
    together = check_pretrain(rows).faults
    alone = {index: fault for index, row in enumerate(rows) for fault in check_pretrain([row]).faults.values()}
    assert together == alone
