"""One table for three targets: no cell breaks out of its place in any of them, and each reads as it was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wcwidth import wcswidth

from tasks.pages.drawings import Bar, Part
from tasks.pages.tables import MAX_ROWS, Category, Column, Link, Table
from tasks.pages.text import one_line
from tests.tasks.pages.readers import TABLE_TAGS, TableReader, cells_of_markdown

COLUMNS = [Column("name"), Column("rows", "number"), Column("why", "long", 12)]
hostile = st.text(alphabet=st.sampled_from("ab_*`~|\\[]()<>&\"'!#-+ \n\r\t\x00\x1b\x7f\u202e\ud800好é"), max_size=16)


@settings(max_examples=150)
@given(st.lists(st.tuples(hostile, st.integers(0, 10**7), hostile), min_size=1, max_size=4))
def test_every_target_shows_every_cell_in_its_place(rows: list[tuple[str, int, str]]) -> None:
    table = Table(COLUMNS, rows)
    shown = [["name", "rows", "why"], *([one_line(a), f"{n:,}", one_line(b, 12)] for a, n, b in rows)]
    assert cells_of_markdown(table.as_markdown()) == shown
    reader = TableReader(table.as_html())
    assert reader.rows == shown
    assert reader.tags <= {*TABLE_TAGS, "div", "bdi"}
    lines = table.as_text().splitlines()
    widths = [max(wcswidth(row[column]) for row in shown) for column in range(2)]
    for line, (name, rows_shown, why) in zip(lines, shown, strict=True):
        left, right = " " * (widths[0] - wcswidth(name)), " " * (widths[1] - wcswidth(rows_shown))
        assert line == f"{name}{left}  {right}{rows_shown}  {why}".rstrip()
        assert line.isprintable()


@given(hostile, st.integers(2, 30))
def test_a_line_is_bounded_and_says_that_it_was_cut(text: str, max_characters: int) -> None:
    line, whole = one_line(text, max_characters), one_line(text, 1_000)
    assert line == whole if len(whole) <= max_characters else line == whole[: max_characters - 1] + "…"


def test_rows_beyond_the_limit_are_counted_and_the_total_stays() -> None:
    rows = [[f"row-{number}", number, ""] for number in range(MAX_ROWS + 1_234)]
    table = Table(COLUMNS, rows, ["all", 7, ""])
    expected = [[f"row-{MAX_ROWS - 1}", f"{MAX_ROWS - 1}", ""], ["and 1,234 more", "", ""], ["all", "7", ""]]
    assert cells_of_markdown(table.as_markdown())[-3:] == expected
    assert TableReader(table.as_html()).rows[-3:] == [expected[0], ["and 1,234 more"], expected[2]]
    assert [line.split() for line in table.as_text().splitlines()[-2:]] == [["and", "1,234", "more"], ["all", "7"]]


def test_bars_are_drawn_in_html_and_links_lead_somewhere_in_markdown() -> None:
    bar = Bar([Part("<one>", 1, "red"), Part("two", 2, "blue")], 4)
    columns = [Column("what", "category"), Column("bar", "bar"), Column("run")]
    table = Table(columns, [[Category("x|y", "red"), bar, Link("1a|b", "http://host/a b|(c)?d=1#/e")]])
    assert table.as_text().splitlines() == ["what  run", "x|y   1a|b"]
    assert table.as_markdown().splitlines()[2] == r"| x\|y | [1a\|b](http://host/a%20b%7C%28c%29?d=1#/e) |"
    html = table.as_html()
    assert '<i class="dot" style="background:red"></i><bdi>x|y</bdi>' in html
    assert '<rect x="25.000" width="50.000" height="10" style="fill:blue"><title>two: 2 (50.0%)</title>' in html
    assert "<title>&lt;one&gt;: 1 (25.0%)</title>" in html
    assert "href" not in html


def test_columns_are_chosen_by_heading_or_by_having_a_cell() -> None:
    columns = [Column("a"), Column("b", "number"), Column("c"), Column("d", "bar")]
    table = Table(columns, [["x", 0, "", None], ["y", "", "", None]], ["all", "", "", None])
    assert [column.heading for column in table.without_empty_columns().columns] == ["a", "b"]
    chosen = table.only("b", "a")
    assert chosen.as_markdown().splitlines() == ["| a | b |", "|---|---:|", "| x | 0 |", "| y |  |", "| all |  |"]


def test_pairs_have_no_headings_and_a_table_without_rows_is_empty() -> None:
    assert Table.of_pairs([("model", "a"), ("run", "b c d")], 4).as_text().splitlines() == ["model  a", "run    b c…"]
    empty = Table(COLUMNS, [], ["all", 0, ""])
    assert (empty.as_text(), empty.as_markdown(), empty.as_html()) == ("", "", "")


@pytest.mark.parametrize("changes", [{"rows": [["a", 1]]}, {"rows": [], "total": ["all"]}])
def test_a_row_of_another_length_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a row has \d cells, the table has 3 columns"):
        Table(COLUMNS, **changes)
