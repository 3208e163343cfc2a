"""The page shows the numbers of the statistics, is well-formed, and nothing from the data can break out of it."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.rows.drift import FEATURES, drift
from data.rows.statistics import Fates, NightStatistics, Overlap, Statistics, TokenCount, measure
from schemas.domain import DOMAINS
from tasks.pages.data_report import DataReport

TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "section", "div", "b", "span", "i",
    "svg", "rect", "path", "text", "table", "thead", "tbody", "tr", "th", "td", "bdi", "details", "summary", "code",
    "ul", "li", "footer",
}  # fmt: skip


class Page(HTMLParser):
    """Reads a page strictly: tables as rows of cell texts, headings, text, all tags and attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.titles: list[str] = []
        self.headings: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)
        if tag in ("h2", "title"):
            (self.headings if tag == "h2" else self.titles).append("")
        if tag == "tr":
            self.tables.setdefault(self.headings[-1], []).append([])
        if tag in ("td", "th"):
            self.tables[self.headings[-1]][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "title" in self.open:
            self.titles[-1] += data
        elif "style" not in self.open:
            self.text += data
            if "h2" in self.open:
                self.headings[-1] += data
            if "td" in self.open or "th" in self.open:
                self.tables[self.headings[-1]][-1][-1] += data

    def row(self, heading: str, first: str) -> dict[str, str]:
        """A row of a table by its first cell: column → cell."""
        head, *rows = self.tables[heading]
        [only] = [row for row in rows if row[0] == first]
        return dict(zip(head, only, strict=True))


def source(code: int, texts: list[str], turns: int = 0) -> Statistics:
    count = len(texts)
    return measure(pl.Series(texts), pl.Series([turns] * count), pl.Series([code] * count, dtype=pl.UInt8))


def night(**changes: Any) -> NightStatistics:
    values: dict[str, Any] = {
        "sources": {
            "books": source(0, ["x = 1\n" * 200] * 1300).merge(source(2, ["words " * 5] * 44)),
            "talk": source(4, ["hi", "hello there"], 3),
        },
        "fates": {
            "books": Fates(read=1507, kept=1344, exact_duplicates=101, near_duplicates=29, quarantined=33,
                           rules={"text_blank": 21, "json": 12}),
            "talk": Fates(read=7, kept=2, quarantined=5, rules={"json": 5}),
        },
    }  # fmt: skip
    return NightStatistics(**values | changes)


FILLED: dict[str, Any] = {
    "tokens": {
        "books": {"code": TokenCount(tokens=60_000, bytes=240_000), "en": TokenCount(tokens=400, bytes=1320)},
        "talk": {"chat": TokenCount(tokens=13, bytes=26)},
    },
    "vocabulary_coverage": {"all": 0.987, "code": 0.654, "chat": 0.111}, "dispersion": {"code": 1.23, "en": 4.56},
    "slots_filled": {"pretrain_train": 0.9871, "chat_val": 0.8642},
    "contamination": {"books": Overlap(documents=480, overlapping=12)},
}  # fmt: skip
RULES = {"json": {"count": 17, "examples": ["f:1 broken here"]}, "text_blank": {"count": 21, "examples": ["f:2 'x'"]}}
BARE = ["Sources", "Domains", "Row lengths", "Quarantine"]
DRIFT = drift(night(), night(sources={"gone": source(4, ["how are you"] * 500, 2), "talk": night().sources["talk"]}))


def full() -> Page:
    return Page(DataReport(night(**FILLED), DRIFT, [("a.jsonl", "still growing")], "Night 7", RULES).as_html())


def test_every_source_has_its_numbers() -> None:
    page = full()
    assert page.row("Sources", "books") == {
        "source": "books", "read": "1,507", "kept": "1,344", "exact dup.": "101", "near dup.": "29",
        "quarantined": "33", "fates": "", "text": "1.6 MB", "domains": "",
        "tokens": "60,400", "bytes/token": "4.00",
    }  # fmt: skip
    whole = page.row("Sources", "all")
    assert [whole[name] for name in ("read", "kept", "exact dup.", "near dup.", "quarantined")] == [
        "1,514", "1,346", "101", "29", "38",
    ]  # fmt: skip
    assert whole["tokens"] == "60,413"


def test_every_domain_has_its_numbers() -> None:
    page = full()
    code, chat = page.row("Domains", "code"), page.row("Domains", "chat")
    assert (code["rows"], code["text"], code["bytes/row"], code["lines/row"]) == ("1,300", "1.6 MB", "1,200", "201.0")
    assert (code["white space"], code["digits"], code["characters/byte"]) == ("50.0%", "16.7%", "1.00")
    assert (code["turns/chat"], chat["turns/chat"], chat["text"]) == ("", "3.0", "13 B")
    assert [row[0] for row in page.tables["Domains"][1:]] == ["code", "en", "chat", "all"]
    assert page.row("Tokens", "code") == {
        "domain": "code", "tokens": "60,000", "share": "99.3%", "": "", "bytes/token": "4.00",
        "vocabulary used": "65.4%", "dispersion": "1.23",
    }  # fmt: skip
    assert page.row("Tokens", "all")["vocabulary used"] == "98.7%"
    assert page.row("Tokens", "en")["dispersion"] == "4.56"


def test_every_bin_of_the_lengths_can_be_pointed_at() -> None:
    titles = full().titles
    for expected in ("1,024 to 2,047 bytes: 1,300", "16 to 31 bytes: 44", "2 to 3 bytes: 1", "8 to 15 bytes: 1"):
        assert expected in titles
    assert {"kept: 1,344 (89.2%)", "quarantined: 5 (71.4%)", "code: 60,000 (99.3%)"} <= set(titles)


def test_lengths_name_the_median_and_the_edges_in_sight() -> None:
    texts = ["x" * 100] * 2 + ["x" * 1000] * 3 + ["x" * 9000]
    page = Page(DataReport(night(sources={"books": source(0, texts)}), None, [], "t").as_html())
    assert "code median 512 to 1,023 bytes256 B4 KiB" in page.text


def test_parts_of_a_bar_lie_side_by_side() -> None:
    bars = [
        [tuple(map(float, part)) for part in re.findall(r'x="([\d.]+)" width="([\d.]+)" height="10"', picture)]
        for picture in re.findall(
            r'<svg class="bar.*?</svg>', DataReport(night(**FILLED), DRIFT, [], "t", RULES).as_html()
        )
    ]
    assert [(0.0, 88.904), (88.904, 6.671), (95.575, 1.915), (97.49, 2.51)] in bars
    for parts in bars:
        ends = [0.0, *(left + width for left, width in parts)]
        assert [left for left, _ in parts] == pytest.approx(ends[:-1], abs=0.01)
        assert ends[-1] <= 100.01


def test_headline_drift_and_the_rest() -> None:
    page = full()
    for feature in DRIFT.features:
        row = page.row("Drift", feature.name.replace("_", " "))
        assert (row["index"], row["reading"]) == (f"{feature.psi:.3f}", feature.reading)
        moved = f"{feature.bin}: {feature.reference:.1%} → {feature.tonight:.1%}"
        assert row["moved most, champion → tonight"] == (moved if feature.psi >= 0.005 else "")
    assert len(page.tables["Drift"]) == 1 + len(FEATURES)
    assert {feature.reading for feature in DRIFT.features} >= {"stable", "different"}
    for part in ("New sources: books", "Vanished sources: gone", f"{DRIFT.worst.psi:.3f}drift, worst", "60,413tokens",
                 "17 json 44.7%", "21 text_blank 55.3%", "f:1 broken here", "f:2 'x'"):  # fmt: skip
        assert part in page.text
    assert page.row("Packing", "chat_val")["filled"] == "86.4%"
    assert list(page.row("Contamination", "books").values())[1:4] == ["480", "12", "2.5%"]
    assert page.row("Files left out", "a.jsonl")["reason"] == "still growing"
    assert page.headings == ["Drift", *BARE, "Tokens", "Packing", "Contamination", "Files left out"]


@pytest.mark.parametrize("lost", [0, 4])
def test_the_fates_of_rows_are_summed_and_checked(lost: int) -> None:
    books = night().fates["books"]
    broken = night(fates=dict(night().fates, books=dataclasses.replace(books, read=books.read + lost)))
    balance = f"{1514 + lost:,} read = 1,346 kept + 101 exact duplicates + 29 near duplicates + 38 quarantined."
    text, markdown = (
        Page(DataReport(broken, None, [], "t").as_html()).text,
        DataReport(broken, None, [], "t").as_markdown(),
    )
    verdict = f"Does not add up: {lost} rows unaccounted for." if lost else "It adds up."
    assert f"{balance} {verdict}" in text
    assert balance.rstrip(".") in markdown
    assert ("**4 rows unaccounted for.**" in markdown) == bool(lost)


def test_what_is_unknown_has_no_place() -> None:
    page = Page(DataReport(night(), None, [], "t").as_html())
    assert page.headings == BARE
    assert not {"tokens", "bytes/token"} & set(page.tables["Sources"][0])
    assert all(len(row) == len(page.tables["Sources"][0]) for row in page.tables["Sources"])
    assert Page(DataReport(NightStatistics(), None, [], "t").as_html()).headings == []
    one = {name: {"code": 0.5} for name in ("vocabulary_coverage", "dispersion")}
    for name, value in one.items():
        heads = Page(DataReport(night(**{name: value}), None, [], "t").as_html()).tables["Tokens"][0]
        assert heads == ["domain", {"vocabulary_coverage": "vocabulary used"}.get(name, name)]


HOSTILE = "</td></section><script>alert(1)</script><img src=x onerror=y>&\"'|`\x00\u202e\ud800"
anything = st.text(alphabet=st.sampled_from("<>&\"'/ab|`\n\x00\u202e\ud800好"), min_size=1, max_size=15)


@settings(max_examples=25)
@given(anything, anything, st.booleans())
def test_nothing_from_the_data_becomes_markup(name: str, reason: str, hostile: bool) -> None:
    name = name + HOSTILE * hostile
    kept = night().sources["talk"]
    whole = night(
        sources={name: kept}, fates={name: Fates(read=2, kept=2, quarantined=0, rules={name: 3})},
        tokens={name: {name: TokenCount(tokens=1, bytes=1)}}, contamination={name: Overlap(documents=1, overlapping=1)},
        slots_filled={name: 1.0}, dispersion={name: 1.0}, vocabulary_coverage={name: 1.0},
    )  # fmt: skip
    rules = {name: {"count": 3, "examples": [reason + HOSTILE]}}
    source = DataReport(whole, drift(whole, night()), [(name, reason)], name, rules).as_html()
    page = Page(source)
    assert page.tags <= TAGS
    assert not any(attribute.startswith("on") or attribute in ("src", "href") for attribute in page.attributes)
    assert len(page.tables["Sources"]) == 3
    assert not set("\x00\u202e") & set(page.text)
    source.encode()
    markdown = DataReport(whole, drift(whole, night()), [(name, reason)], name, rules).as_markdown()
    markdown.encode()
    assert "<" not in markdown
    width = {line: len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith("|")}
    assert set(width.values()) == {7, 5, 3, 4}


def test_escaped_text_still_reads_as_it_was() -> None:
    rules = {"json": {"count": 17, "examples": ["x.jsonl:3 <script>alert('1')</script> & more"]}}
    source = DataReport(night(), None, [], "a <b> c", rules).as_html()
    assert "<script" not in source
    assert "x.jsonl:3 <script>alert('1')</script> & more" in Page(source).text
    assert "a <b> c" in Page(source).text


def test_the_page_needs_nothing_but_itself() -> None:
    source = DataReport(night(**FILLED), drift(night(), night()), [], "t", RULES).as_html()
    assert not re.search(r"https?:|url\(|@import|<link|<script|<img", source)
    assert "prefers-color-scheme: dark" in source
    assert 'name="viewport"' in source


def test_lists_and_examples_are_bounded() -> None:
    rules = {f"rule-{number:03}": {"count": 1, "examples": ["y" * 10_000] * 9} for number in range(50)}
    many = {f"source-{number:03}": night().sources["talk"] for number in range(100)}
    whole = night(sources=many, fates={name: Fates(read=2, kept=2) for name in many})
    page = Page(DataReport(whole, None, [("f", "z" * 9_999)] * 70, "t", rules).as_html())
    assert page.text.count("rule-") == 20
    assert "and 30 more rules" in page.text
    assert sorted(map(len, re.findall("y{9,}…", page.text))) == [200] * 20 * 5
    assert [row[0] for row in page.tables["Sources"]][-2:] == ["and 40 more", "all"]
    assert len(page.tables["Files left out"]) == 1 + 60 + 1
    assert len(page.text) < 60_000


def test_the_short_version() -> None:
    whole = night(**FILLED)
    lines = (
        DataReport(whole, drift(whole, night()), [("a.jsonl", "grows")], "Night 7", RULES).as_markdown().splitlines()
    )
    for line in ("# Night 7", "| books | 1,507 | 1,344 | 101 | 29 | 33 |", "| code | 1,300 | 1.6 MB | 99.9% |",
                 "| text_blank | 21 |", "| json | 17 |", "| source mix | 0.000 | stable |",
                 "| a.jsonl | grows |"):  # fmt: skip
        assert line in lines
    assert not any("sources:" in line for line in lines)
    assert "New sources: books, talk" in DataReport(whole, drift(whole, NightStatistics()), [], "t").as_markdown()
    assert len(DataReport(NightStatistics(), None, [], "t").as_markdown().splitlines()) == 3


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_domain_has_a_colour_of_its_own(domain: str) -> None:
    source = DataReport(
        night(tokens={"books": {name: TokenCount(tokens=1, bytes=1) for name in DOMAINS}}), None, [], "t"
    ).as_html()
    dots = dict(re.findall(r'<i class="dot" style="background:(var\(--c\d\))"></i><bdi>([a-z]+)</bdi>', source))
    assert sorted(dots.values()) == sorted(DOMAINS)
    [own] = [colour for colour, name in dots.items() if name == domain]
    assert source.count(own[4:-1] + ": #") == 2
