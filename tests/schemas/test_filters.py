from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from model.config.checks import STRICT
from model.config.network import ModelConfig
from schemas.filters import RULES, FilterConfig, faults_of_texts
from schemas.jsonl import Fault
from tests.reference import filters as reference

EVERYTHING = FilterConfig(
    min_characters=3,
    max_characters=12,
    max_repeated_ngram_share=0.2,
    max_repeated_line_share=0.1,
    max_symbol_share=0.1,
    max_gibberish_score=0.1,
    personal_data=True,
)
RECOMMENDED = FilterConfig(
    min_characters=5,
    max_symbol_share=0.3,
    max_repeated_line_share=0.4,
    max_repeated_ngram_share=0.6,
    max_gibberish_score=0.3,
    personal_data=True,
)
ORDINARY = {
    "English": "Knights' strengths lay in rhythms; the Christmas catchphrase earned $1,200 (about 12%) in 2021.",
    "German": "Die deutsche Wirtschaftspolitik und die Rechtsprechung des Bundesgerichtshofs füllen Bücherregale.",
    "Polish": "Bezwzględny chrząszcz brzmi w trzcinie; przestrzegać należy wszystkich znaków na wstrząsanej drodze.",
    "Chinese": "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？人不知而不愠，不亦君子乎？",
    "Persian": "برنامه\u200cهای کامپیوتری وقتی سی پی یو زیاد مصرف می\u200cکنند، داغ می\u200cشوند.",
    "Hindi": "आप कैसे हैं? मैं अच्छा हूँ, धन्यवाद। आज मौसम बहुत सुहावना है।",
    "Python": "def clamp(value: float, low: float = 0.0, high: float = 1.0):\n    return max(low, min(high, value))\n",
    "C": '#include <stdio.h>\n\nint main(void)\n{\n    printf("%d\\n", 1 << 10);\n    return 0;\n}\n',
    "shell": "git clone git@github.com:org/a.git && pip install 'numpy==1.26.4.120' && curl http://192.168.1.10:8080/",
    "numbers": "2^34 = 17179869184, pi = 3.14159265358, at 1700000000000 ms, 2024-01, v10.0.19041.1, 0x7fffffff, 1e-12",
    "table": "| layer | loss |\n|---|---|\n| 0 | 2.31 |\n| 1 | 2.17 |\n",
}

pieces = st.sampled_from(
    ["a", "b", "ab", "the", " ", " ", "\n", "\n", "\t", "\xa0", "\r", "一", "丁", "七", "一二三四五六七八九十", "é"]
)
repetitive = st.lists(pieces, max_size=60).flatmap(lambda x: st.sampled_from(["".join(x), " ".join(x), "".join(x * 3)]))
symbolic = st.text(
    alphabet="aé漢9٣\u0301\u200c\u200d\u00ad\x00 \n\u3000.,-/%&«。।#*@[\\]_{}$+<=>^`|~€™🙂\ufffd\x7f", max_size=12
)
words_and_runs = st.sampled_from(["strength", "sdfgj", "sdhfgj", "xyz", "qx", "IRAQ", "aeiou", "A1+/", "A1b2C3d4" * 4])
odd_characters = st.sampled_from(["Ã©", "â€™", "ðŸ˜€", *"Ãâſ\u212a漢é €_ \x80\ufffd\ue000"])
gibberish = st.lists(words_and_runs | odd_characters, max_size=12).map("".join)
limits = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.75, 1.0])

MEASURES: dict[str, tuple[str, Callable[[str], float], st.SearchStrategy[str]]] = {
    "max_symbol_share": ("filter_symbols", reference.symbol_share, symbolic),
    "max_gibberish_score": ("filter_gibberish", reference.gibberish_score, gibberish),
    "max_repeated_line_share": ("filter_repeated_lines", reference.repeated_line_share, repetitive),
    "max_repeated_ngram_share": ("filter_repetition", reference.repeated_ngram_share, repetitive),
}


def rules_of(texts: list[str | None], config: FilterConfig) -> dict[int, str]:
    faults = faults_of_texts(pl.Series("text", texts, dtype=pl.String), config)
    return {row: fault.rule for row, fault in faults.items()}


@pytest.mark.parametrize("field", MEASURES)
@settings(max_examples=60)
@given(data=st.data())
def test_a_share_is_what_the_slow_measure_says_and_its_limit_itself_is_kept(field: str, data: st.DataObject) -> None:
    rule, measure, texts_of_field = MEASURES[field]
    texts = data.draw(st.lists(texts_of_field, min_size=1, max_size=6))
    for limit in (data.draw(limits), measure(texts[0])):
        expected = {row: rule for row, text in enumerate(texts) if measure(text) > limit}
        assert rules_of(texts, FilterConfig(**{field: limit})) == expected


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("max_symbol_share", "ab##", 0.5),
        ("max_symbol_share", "", 0.0),
        ("max_gibberish_score", "sdfgj okay", 0.5),
        ("max_gibberish_score", "cafÃ©", 0.4),
        ("max_repeated_line_share", "ab\n ab\t\n\nabcd", 0.25),
        ("max_repeated_ngram_share", "a b c d e x a b c d e", 10 / 11),
        ("max_repeated_ngram_share", "a b c d e x a c b d e", 0.0),
        ("max_repeated_ngram_share", "一二三四五六七八九十" * 2, 1.0),
        ("max_repeated_ngram_share", "一二三四五六七八九十，一二三七五六四八九十", 0.0),
    ],
)
def test_shares_by_hand(field: str, text: str, expected: float) -> None:
    assert MEASURES[field][1](text) == expected
    assert rules_of([text], FilterConfig(**{field: expected})) == {}
    if expected:
        below = FilterConfig(**{field: expected - 1e-9})
        assert rules_of([text], below) == {0: MEASURES[field][0]}


def test_an_ngram_does_not_go_on_in_the_next_text() -> None:
    assert rules_of(["a b c d e x a b c", "d e"], FilterConfig(max_repeated_ngram_share=0.0)) == {}


@settings(max_examples=50)
@given(texts=st.lists(st.text(max_size=8), max_size=8), low=st.integers(1, 5), more=st.integers(0, 3))
def test_lengths_are_counted_in_characters(texts: list[str], low: int, more: int) -> None:
    expected = {
        row: "filter_too_short" if len(text) < low else "filter_too_long"
        for row, text in enumerate(texts)
        if not low <= len(text) <= low + more
    }
    assert rules_of(texts, FilterConfig(min_characters=low, max_characters=low + more)) == expected


@settings(max_examples=25)
@given(texts=st.lists(st.none() | st.text(max_size=40) | repetitive | gibberish, max_size=8))
@example(texts=[None, "", "\x00", "\ufeff", "\x85\u2028", "\U0010ffff"])
def test_no_text_raises_and_each_is_judged_alone(texts: list[str | None]) -> None:
    series = pl.Series("text", texts, dtype=pl.String)
    together = faults_of_texts(series, EVERYTHING)
    alone = {row: faults_of_texts(series.slice(row, 1), EVERYTHING) for row in range(len(texts))}
    assert together == {row: faults[0] for row, faults in alone.items() if faults}
    assert not any(texts[row] is None for row in together)


def test_many_texts_are_judged_as_one_by_one() -> None:
    """More than one slice of memory, with rows of very different length."""
    kinds = ["a b c d e " * 400, "ok", "sdfgj " * 300, "a@b.org", "#" * 5_000, "fine words here"]
    each = {kind: faults_of_texts(pl.Series([kind]), EVERYTHING).get(0) for kind in kinds}
    texts = [kinds[(row * row) % len(kinds)] for row in range(1_500)]
    assert sum(map(len, texts)) > 2 << 20
    assert faults_of_texts(pl.Series(texts), EVERYTHING) == {
        row: each[text] for row, text in enumerate(texts) if each[text]
    }


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_text_is_kept(name: str) -> None:
    assert faults_of_texts(pl.Series([ORDINARY[name]]), RECOMMENDED) == {}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("hi", "filter_too_short"),
        ("<<<>>> === ||| ~~~ $$$", "filter_symbols"),
        ("xkcvb qwrtp zxdfg hjklm vbnqx", "filter_gibberish"),
        ("ä½ å¥½ï¼Œä¸–ç•Œï¼Œä½ å¥½", "filter_gibberish"),
        ("iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAA", "filter_gibberish"),
        ("buy now\n" * 8, "filter_repeated_lines"),
        ("I do not know what to say " * 5, "filter_repetition"),
        ("我不知道该说什么才好我不知道该说什么才好" * 3, "filter_repetition"),
        ("write to jane.roe@mail.org today", "filter_personal_data"),
    ],
)
def test_spoilt_text_is_named_under_the_recommended_settings(text: str, rule: str) -> None:
    assert rules_of([text], RECOMMENDED) == {0: rule}


def test_the_detail_names_the_measure_the_limit_and_the_setting() -> None:
    texts = pl.Series(["a b c d e x a b c d e", "abc"])
    assert faults_of_texts(texts, FilterConfig(max_repeated_ngram_share=0.3, min_characters=5)) == {
        0: Fault(
            "filter_repetition",
            "repeated n-grams (5 words, 10 characters without spaces) cover 91% of the text, the limit is 30% "
            "(validate.filters.max_repeated_ngram_share)",
        ),
        1: Fault("filter_too_short", "3 characters, the minimum is 5 (validate.filters.min_characters)"),
    }


@settings(max_examples=100)
@given(symbols=st.integers(1, 400), letters=st.integers(0, 400), limit=st.decimals(0, 1, places=6).map(float))
def test_the_measured_share_is_never_shown_as_the_limit_itself(symbols: int, letters: int, limit: float) -> None:
    faults = faults_of_texts(pl.Series(["#" * symbols + "a" * letters]), FilterConfig(max_symbol_share=limit))
    for fault in faults.values():
        measured, shown_limit = (word.strip("%,") for word in fault.detail.split() if word.strip(",").endswith("%"))
        assert float(measured) > float(shown_limit)


def test_several_faults_are_reported_under_the_first_rule() -> None:
    texts = ["a@b.org#" * 9, "#", "####" * 9, "#" * 12, "sdfgj\nsdfgj", "ab cd\nab cd"]
    assert list(rules_of(texts, EVERYTHING).values()) == list(RULES[:6])
    assert rules_of(["a b c d e a b c d e"], FilterConfig(max_repeated_ngram_share=0.5)) == {0: RULES[6]}
    assert len(RULES) == 7


def test_nothing_is_on_until_it_is_set() -> None:
    assert not FilterConfig().active
    assert rules_of(["", "#", "a@b.org"], FilterConfig()) == {}
    assert FilterConfig(max_symbol_share=0.0).active
    assert FilterConfig(personal_data=True).active
    assert rules_of([], EVERYTHING) == {}


def test_every_problem_of_a_configuration_is_told_at_once() -> None:
    with pytest.raises(ValueError) as error:
        FilterConfig(min_characters=0, max_characters=-1, max_symbol_share=1.5, max_gibberish_score=float("nan"))
    for name in ("min_characters (0)", "max_characters (-1)", "max_symbol_share (1.5)", "max_gibberish_score (nan)"):
        assert name in str(error.value)
    with pytest.raises(ValueError, match=r"min_characters \(9\) is over max_characters \(8\)"):
        FilterConfig(min_characters=9, max_characters=8)


def test_an_unknown_key_is_refused_as_in_the_rest_of_a_recipe() -> None:
    assert FilterConfig.__pydantic_config__ == ModelConfig.__pydantic_config__ == STRICT
    assert TypeAdapter(FilterConfig).validate_python({"min_characters": 5}) == FilterConfig(min_characters=5)
    with pytest.raises(ValidationError):
        TypeAdapter(FilterConfig).validate_python({"min_character": 5})
