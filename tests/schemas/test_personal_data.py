from __future__ import annotations

from datetime import date

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.filters import FilterConfig, faults_of_texts
from schemas.personal_data import KINDS, personal_data_of_texts
from tests.reference.filters import iban, luhn_check_digit, resident_check_character

HELD = {
    "an e-mail address": [
        "jane.roe@mail.org",
        "Jane_Roe+list@dept.uni-bonn.de",
        "mailto:x@y.travel",
        "（j@qq.com）",
        "a.b@c.io.",
    ],
    "an international phone number": [
        "+49 30 901820",
        "+86 138 0013 8001",
        "+442079460018",
        "+44 (0)20 7946 0018",
        "+1 (212) 664-7665",
        "+1-212-664-7665",
        "+33 6 12 34 56 78",
        "tel:+35312345678",
        "+1.2126647665",
    ],
    "a Chinese mobile number": ["手机13912345678，", "139-1234-5678", "TEL 186 1234 5679.", "电话：19912345671"],
    "an IBAN": [
        "DE89370400440532013000",
        "GB82 WEST 1234 5698 7654 32",
        "pay GB82 WEST 1234 5698 7654 32 NOW",
        "NO9386011117947",
    ],
    "a payment card number": [
        "4532015112830366",
        "4532 0151 1283 0366",
        "5425-2334-3010-9903",
        "3714 496353 98431",
        "card 4532 0151 1283 0366 12/27",
        "6212345678901232,",
    ],
    "a Chinese resident identity number": ["11010519491231002X", "身份证11010519491231002x。", "440524199001010018"],
    "a US social security number": ["536-22-8724", "SSN:219-09-9998"],
    "a public IPv4 address": ["from 93.184.215.14:80", "http://151.101.1.69/", "203.0.112.9."],
}
LOOK_ALIKES = [
    "x@W.transpose(0, 1)",
    "logo@2x.png and icon@large.svg",
    "git@github.com:org/project.git",
    "jane@example.com, root@db.test, me@printer.local",
    "@decorator.name user@localhost a @ b.c",
    "+1 212 555 0123",
    "+1000000000 +12126647665123",
    "+3.14159265358",
    "+83 123456789",
    "x+123456789012",
    "3.13912345678",
    "17179869184 bytes, 13000000000 rows",
    "id13912345678",
    "139123456789 1391234567",
    "0x4532015112830366",
    "4111 1111 1111 1111 4242424242424242",
    "12 4532 0151 1283 0366",
    "0.4532015112830366",
    "ab12cd34-4532-0151-1283-0366ab12cd34",
    "000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000 123-45-6789 078-05-1120 457-55-5462",
    "2024-01-31 536-22-87245 1-536-22-8724",
    "127.0.0.1 10.0.0.138 192.168.1.100 172.16.200.1 169.254.169.254 255.255.255.0 224.0.0.251",
    "1.2.3.4 8.8.8.8 v10.0.19041.1 version 100.2.3.4 Chrome/120.0.0.9 numpy==1.26.4.120 1.3.6.1.4.1.311",
    "256.300.1.999 1.1.1.01 93.184.215.0 93.184.215.255",
    "14.215.184.93.in-addr.arpa",
    "DE89370400440532013001 XX89370400440532013000 DE893704004405320130000",
]


def kind_of(text: str) -> str | None:
    return personal_data_of_texts(pl.Series([text])).get(0)


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in HELD.items() for text in texts])
def test_each_kind_is_found_and_its_value_never_told(kind: str, text: str) -> None:
    assert kind_of(f"Here: {text}") == kind
    (fault,) = faults_of_texts(pl.Series([text]), FilterConfig(personal_data=True)).values()
    assert fault.rule == "filter_personal_data"
    assert fault.detail == f"holds {kind} (validate.filters.personal_data)"


def test_every_kind_has_samples() -> None:
    assert [kind.name for kind in KINDS] == list(HELD)


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_looks_alike_is_left_alone(text: str) -> None:
    assert kind_of(text) is None


@settings(max_examples=40)
@given(data=st.data())
def test_one_wrong_digit_of_a_card_breaks_it(data: st.DataObject) -> None:
    digits = "4" + data.draw(st.text(alphabet="0123456789", min_size=14, max_size=14)) + "?"
    digits = digits[:-1] + luhn_check_digit(digits[:-1])
    enough = len(set(digits)) >= 4
    assert kind_of(digits) == ("a payment card number" if enough else None)
    assert kind_of(wrong_digit(data, digits, from_place=1)) is None


@settings(max_examples=40)
@given(data=st.data())
def test_one_wrong_digit_of_an_iban_breaks_it(data: st.DataObject) -> None:
    country, pattern = data.draw(
        st.sampled_from([("DE", "[0-9]{18}"), ("GB", "[A-Z]{4}[0-9]{14}"), ("NO", "[0-9]{11}")])
    )
    number = iban(country, data.draw(st.from_regex(pattern, fullmatch=True)))
    groups = " ".join(number[i : i + 4] for i in range(0, len(number), 4))
    assert kind_of(number) == kind_of(f"to {groups}, please") == "an IBAN"
    assert kind_of(wrong_digit(data, number, from_place=8)) is None


@settings(max_examples=40)
@given(data=st.data(), born=st.dates(min_value=date(1900, 1, 1), max_value=date(2099, 12, 31)))
def test_one_wrong_digit_of_a_resident_number_breaks_it(data: st.DataObject, born: date) -> None:
    digits = f"440524{born:%Y%m%d}{data.draw(st.integers(0, 999)):03d}"
    number = digits + resident_check_character(digits)
    assert kind_of(number) == "a Chinese resident identity number"
    assert kind_of(wrong_digit(data, number, from_place=0)) is None


@pytest.mark.parametrize("digits", ["38052419900101001", "44052418991231001", "44052421000101001", "44052419900230001"])
def test_a_resident_number_has_a_province_and_a_day_of_birth(digits: str) -> None:
    assert kind_of(digits + resident_check_character(digits)) is None


def wrong_digit(data: st.DataObject, number: str, from_place: int) -> str:
    """`number` with another digit at one place at or behind `from_place`."""
    place = data.draw(st.integers(from_place, len(number) - 1).filter(lambda i: number[i].isdigit()))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != number[place]]))
    return number[:place] + other + number[place + 1 :]


@settings(max_examples=60)
@given(data=st.data())
def test_the_quick_look_misses_nothing_that_the_pattern_finds(data: st.DataObject) -> None:
    """Against all patterns on every text; pieces of numbers and signs make half-formed hits likely."""
    samples = st.sampled_from([text for texts in HELD.values() for text in texts] + LOOK_ALIKES)
    pieces = st.lists(samples | st.text(alphabet="0139 +-.@aZ:漢\n", max_size=6), min_size=1, max_size=4)
    texts = [data.draw(st.sampled_from(["", " ", ", "])).join(data.draw(pieces)) for _ in range(5)]
    slow = {}
    for row, text in enumerate(texts):
        kinds = [kind.name for kind in KINDS if any(map(kind.genuine, kind.pattern.finditer(text)))]
        if kinds:
            slow[row] = kinds[0]
    assert personal_data_of_texts(pl.Series(texts)) == slow


def test_series_without_texts_or_with_nulls() -> None:
    assert personal_data_of_texts(pl.Series([], dtype=pl.String)) == {}
    assert personal_data_of_texts(pl.Series([None, "a@b.org"], dtype=pl.String)) == {1: "an e-mail address"}
