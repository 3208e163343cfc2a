from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.domain import BLOCK_ROWS, DOMAINS, PREFIX_CHARACTERS, Domain, classify

FIXTURE = Path(__file__).with_name("domains.jsonl")
ROWS = [json.loads(line) for line in FIXTURE.read_text(encoding="utf-8").splitlines()]
TEXTS = [row["text"] for row in ROWS]
HELD_OUT = [row for row in ROWS if row.get("held_out")]

any_text = st.one_of(st.text(max_size=80), st.sampled_from(TEXTS))

# One sentence of each kind that the meaning of a domain speaks of; none is a row of the fixture.
MEANINGS: list[tuple[Domain, str]] = [
    ("code", "// 计算两点之间的距离\ndouble dist(point a, point b) {\n    return hypot(a.x - b.x, a.y - b.y);\n}\n"),
    ("code", "retries: 3\nhosts:\n  - name: alpha\n    port: 8022\n  - name: beta\n    port: 8023\n"),
    ("code", "$ ls -l build\n$ tail -n 3 build/out.log\nlinking target\n$ echo $?\n0\n"),
    ("zh", "春天来了，河边的柳树发了芽，孩子们在草地上放风筝，老人们坐在长椅上晒太阳。"),
    ("zh", "昨天我在网上买了一台新的 laptop，屏幕很清楚，就是键盘有点小。"),
    ("en", "The old bridge was closed for the winter, and so we had to walk all the way round the lake."),
    ("math", "计算：125 × 8 = 1000，1000 ÷ 4 = 250，所以答案是 250。"),
    ("math", r"For $x > 0$ we have $\log x \le x - 1$, with equality if and only if $x = 1$."),
    ("chat", "用户：今天星期几？\n助手：今天星期三。\n用户：谢谢。"),
    ("chat", "Vera: is it raining there?\nOskar: not yet\nVera: lucky you"),
    ("chat", "<|im_start|>user\nbonjour<|im_end|>\n<|im_start|>assistant\nBonjour !<|im_end|>"),
    ("other", "今日はとても暑かったので、家でアイスクリームを食べながら本を読んでいました。"),
    ("other", "어제는 비가 많이 와서 하루 종일 집에서 책을 읽었다."),
    ("other", "El tren de las ocho siempre llega tarde, pero los viajeros ya no se quejan."),
    ("other", "Der Bäcker an der Ecke macht im August drei Wochen Urlaub, und alle vermissen ihn."),
    ("other", "Nous avons marché toute la journée dans la forêt sans rencontrer personne."),
    ("other", "Pagi ini ibu pergi ke pasar untuk membeli sayur dan ikan yang segar."),
    ("other", "41.2 17.9 33.0\n40.8 18.3 32.1\n39.9 18.8 31.7\n"),
    ("other", ""),
    ("other", " \n\t"),
]


def f1_scores(rows: list[dict[str, str]]) -> dict[str, float]:
    """F1 of each domain, on labelled rows."""
    codes = classify(pl.Series([row["text"] for row in rows]))
    pairs = Counter(zip((row["domain"] for row in rows), (DOMAINS[code] for code in codes), strict=True))
    scores = {}
    for domain in DOMAINS:
        labelled = sum(count for (label, _), count in pairs.items() if label == domain)
        found = sum(count for (_, verdict), count in pairs.items() if verdict == domain)
        scores[domain] = 2 * pairs[domain, domain] / (labelled + found)
    return scores


def test_the_fixture_is_large_balanced_and_without_repeats() -> None:
    counts = Counter(row["domain"] for row in ROWS)
    assert counts.keys() == set(DOMAINS)
    assert len(ROWS) >= 330
    assert min(counts.values()) >= 45
    assert len(set(TEXTS)) == len(TEXTS)
    assert all(row.keys() <= {"text", "domain", "held_out"} for row in ROWS)


def test_a_third_of_each_domain_of_the_fixture_is_held_out() -> None:
    counts, held_out = (Counter(row["domain"] for row in rows) for rows in (ROWS, HELD_OUT))
    assert all(abs(held_out[domain] - counts[domain] / 3) <= 1 for domain in DOMAINS)


@pytest.mark.parametrize("rows", [ROWS, HELD_OUT], ids=["all", "held out"])
def test_the_labels_are_found(rows: list[dict[str, str]]) -> None:
    scores = f1_scores(rows)
    assert min(scores.values()) >= 0.90, scores
    assert sum(scores.values()) / len(scores) >= 0.95, scores


@pytest.mark.parametrize(("domain", "text"), MEANINGS)
def test_the_meaning_of_a_domain(domain: Domain, text: str) -> None:
    assert DOMAINS[classify(pl.Series([text]))[0]] == domain


def test_the_order_of_the_domains_is_a_contract() -> None:
    assert DOMAINS == ("code", "zh", "en", "math", "chat", "other")


@given(st.lists(any_text, max_size=6))
def test_every_text_has_a_domain(texts: list[str]) -> None:
    codes = classify(pl.Series(texts, dtype=pl.String))
    assert (codes.dtype, len(codes)) == (pl.UInt8, len(texts))
    assert all(code < len(DOMAINS) for code in codes)


@given(st.lists(st.lists(any_text, max_size=4), min_size=1, max_size=4))
def test_a_row_does_not_depend_on_the_rows_and_chunks_around_it(chunks: list[list[str]]) -> None:
    series = pl.concat([pl.Series(chunk, dtype=pl.String) for chunk in chunks], rechunk=False)
    alone = [classify(pl.Series([text]))[0] for chunk in chunks for text in chunk]
    assert classify(series).to_list() == alone


def test_the_fixture_row_by_row_is_the_fixture_whole() -> None:
    assert classify(pl.Series(TEXTS)).to_list() == [classify(pl.Series([text]))[0] for text in TEXTS]


def test_a_series_of_many_blocks_is_classified_as_its_parts_are() -> None:
    once = classify(pl.Series(TEXTS)).to_list()
    repeats = 2 * BLOCK_ROWS // len(TEXTS) + 1
    assert classify(pl.Series(TEXTS * repeats)).to_list() == once * repeats


@given(st.sampled_from(TEXTS), any_text, any_text)
def test_what_follows_the_prefix_changes_nothing(text: str, one: str, other: str) -> None:
    prefix = (text * (PREFIX_CHARACTERS // len(text) + 1))[:PREFIX_CHARACTERS]
    first, second, bare = classify(pl.Series([prefix + one, prefix + other, prefix]))
    assert first == second == bare


def test_the_whole_prefix_counts() -> None:
    filler = "x" * (PREFIX_CHARACTERS - 70)
    markers = "\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhi"
    before, behind = classify(pl.Series([filler + markers, filler + "x" * 70 + markers]))
    assert (DOMAINS[before], DOMAINS[behind]) == ("chat", "other")
