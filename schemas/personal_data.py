"""Find texts that hold personal data of a fixed form: patterns, check digits, and the look-alikes left out.

A cheap regular expression over the whole series picks the few texts worth a look; Python looks at those alone. Check
digits and national formats are those of python-stdnum. Names, street addresses and anything else without a form are not
found: this lowers the risk, it does not end it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import accumulate

import polars as pl
from stdnum import iban, luhn
from stdnum.cn import ric
from stdnum.exceptions import ValidationError
from stdnum.us import ssn

BEFORE = r"(?<![A-Za-z0-9_])(?<![0-9][.-])"
AFTER = r"(?![A-Za-z0-9_])(?![.-][0-9])"
"""A number inside a longer number, a decimal fraction, an identifier or a UUID is none of ours."""
OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
RESERVED_DOMAIN = re.compile(r"(?:^|\.)(?:example(?:\.com|\.net|\.org)?|test|invalid|localhost|local)$")
"""RFC 2606 and RFC 6762: names that reach nobody."""
FILE_ENDINGS = frozenset({"css", "gif", "ico", "jpeg", "jpg", "js", "png", "svg", "webp"})
"""`logo@2x.png` is a picture in double resolution."""
UNASSIGNED_CALLING_CODES = ("28", "83", "89")
NORTH_AMERICAN = re.compile(r"1[2-9][0-9]{2}[2-9][0-9]{6}")
FICTIONAL_NORTH_AMERICAN = re.compile(r"1[0-9]{3}55501[0-9]{2}")
SIGNED_DECIMAL = re.compile(r"\+(?:[2-689]|[0-9]{4,})\.[0-9]+")
"""`+3.14159265358`; a point after a calling code, as in `+44.2079460000`, is how domain registries write numbers."""
CARD_BRANDS = re.compile(
    r"4[0-9]{15}|5[1-5][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}"
    r"|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|6(?:011|5[0-9]{2}|4[4-9][0-9])[0-9]{12}"
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12}|62[0-9]{14,17}"
)
"""Visa, Mastercard (two ranges), American Express, Diners Club, Discover, JCB, UnionPay."""
MIN_DISTINCT_CARD_DIGITS = 4
"""The test numbers of payment providers (4111 1111 1111 1111, 4242 ...) have fewer; one real card in a million does."""
MIN_IBAN_CHARACTERS = 15
"""Norway's."""
PROVINCES = frozenset(
    f"{region}{province}"
    for region, provinces in enumerate(["12345", "123", "1234567", "123456", "01234", "12345", "1", "123"], start=1)
    for province in provinces
)
"""GB/T 2260, first level; 83 is given to residents from Taiwan."""
SAMPLE_SSN = "123-45-6789"
"""Of countless manuals; it was issued, so stdnum has it for valid."""
SAMPLE_IPV4S = frozenset({"123.45.67.89", "123.123.123.123"})
VERSION_BEFORE = re.compile(r"(?:[A-Za-z]/|[=<>~^]=|\b(?:v|ver|version|release|build)[ .:=]{1,2})$", re.IGNORECASE)


def is_email(match: re.Match[str]) -> bool:
    """An address that could reach a person: no reserved domain, no `git@` login, no file name."""
    local, _, domain = match.group().lower().rpartition("@")
    ending = domain.rpartition(".")[2]
    return local != "git" and ending not in FILE_ENDINGS and not RESERVED_DOMAIN.search(domain)


def is_international_phone(match: re.Match[str]) -> bool:
    """E.164: an assigned calling code; for +1 also an area, an exchange and none of the numbers kept for fiction."""
    if SIGNED_DECIMAL.fullmatch(match.group()):
        return False
    digits = re.sub(r"[^0-9]", "", match.group())
    if digits.startswith("1"):
        return bool(NORTH_AMERICAN.fullmatch(digits)) and not FICTIONAL_NORTH_AMERICAN.fullmatch(digits)
    return not digits.startswith(UNASSIGNED_CALLING_CODES)


def is_chinese_mobile(match: re.Match[str]) -> bool:
    """Round numbers are amounts and sizes: 13,000,000,000 or two to the power of 34."""
    number = int(re.sub(r"[^0-9]", "", match.group()))
    return number % 100_000 != 0 and number % 1024 != 0


def is_iban(match: re.Match[str]) -> bool:
    """ISO 13616: the structure that the SWIFT registry has for the country, and the remainder 1 modulo 97 (ISO 7064).

    Groups of four may run into capital letters of the next word, so the number may end with any group. Check digits
    that some countries have inside the account number are not looked at.
    """
    numbers = (number for number in accumulate(match.group().split(" ")) if len(number) >= MIN_IBAN_CHARACTERS)
    return any(iban.is_valid(number, check_country=False) for number in numbers)


def is_card(match: re.Match[str]) -> bool:
    """A brand's prefix and length (ISO/IEC 7812), Luhn's check digit, and no test number."""
    digits = re.sub(r"[^0-9]", "", match.group())
    return (
        bool(CARD_BRANDS.fullmatch(digits)) and luhn.is_valid(digits) and len(set(digits)) >= MIN_DISTINCT_CARD_DIGITS
    )


def is_resident_id(match: re.Match[str]) -> bool:
    """GB 11643-1999: a province, a possible day of birth, and the check character of ISO 7064 MOD 11-2.

    Not `ric.is_valid`: that asks for a county code that was in use at birth, but a number has the code of its
    registration, which may have come decades later.
    """
    number = match.group().upper()
    if number[:2] not in PROVINCES or ric.calc_check_digit(number) != number[-1]:
        return False
    try:
        return 1900 <= ric.get_birth_date(number).year < 2100
    except ValidationError:
        return False


def is_ssn(match: re.Match[str]) -> bool:
    """A number that is issued, and none that was printed as a sample."""
    return ssn.is_valid(match.group()) and match.group() != SAMPLE_SSN


def is_public_ipv4(match: re.Match[str]) -> bool:
    """The address of one host in the public network, not a private range, a mask or a version number.

    A version has small numbers: of four numbers in an address, one at least reaches 100 in 98 of 100 cases.
    """
    numbers = [int(number) for number in match.group().split(".")]
    if max(numbers) < 100 or numbers[3] in (0, 255) or match.group() in SAMPLE_IPV4S:
        return False
    if VERSION_BEFORE.search(match.string[max(0, match.start() - 12) : match.start()]):
        return False
    address = IPv4Address(match.group())
    return address.is_global and not address.is_multicast


@dataclass(frozen=True)
class Kind:
    """One kind of personal data."""

    name: str
    hint: str
    """Regular expression of polars; finds whatever `pattern` finds, and more."""
    pattern: re.Pattern[str]
    genuine: Callable[[re.Match[str]], bool]


KINDS = (
    Kind(
        "an e-mail address",
        r"(?-u)[A-Za-z0-9_%+-]@[A-Za-z0-9-]{1,63}\.",
        re.compile(
            r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{0,63}[A-Za-z0-9_%+-]@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}"
            r"(?![A-Za-z0-9_(-])"
        ),
        is_email,
    ),
    Kind(
        "an international phone number",
        r"(?-u)\+[1-9][ .()/-]{0,2}[0-9]",
        re.compile(r"(?<![A-Za-z0-9_)\]])\+[1-9](?:[ .()/-]{0,2}[0-9]){8,14}(?![A-Za-z0-9_])"),
        is_international_phone,
    ),
    Kind(
        "a Chinese mobile number",
        r"(?-u)1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}",
        re.compile(rf"{BEFORE}1[3-9][0-9]([ -]?)[0-9]{{4}}\1[0-9]{{4}}{AFTER}"),
        is_chinese_mobile,
    ),
    Kind(
        "an IBAN",
        r"(?-u)[A-Z]{2}[0-9]{2} ?[A-Z0-9]{4}",
        re.compile(
            r"(?<![A-Za-z0-9_])[A-Z]{2}[0-9]{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)"
            r"(?![A-Za-z0-9_])"
        ),
        is_iban,
    ),
    Kind(
        "a payment card number",
        r"(?-u)[2-6][0-9]{3}[ -]?[0-9]{4}[0-9 -]{6}",
        re.compile(
            rf"(?<![0-9] ){BEFORE}(?:[2-6][0-9]{{13,18}}|[2-6][0-9]{{3}}([ -])[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}"
            rf"(?:\1[0-9]{{3}})?|3[0-9]{{3}}([ -])[0-9]{{6}}\2[0-9]{{4,5}}){AFTER}"
        ),
        is_card,
    ),
    Kind(
        "a Chinese resident identity number",
        r"(?-u)[1-8][0-9]{16}[0-9Xx]",
        re.compile(rf"{BEFORE}[1-8][0-9]{{16}}[0-9Xx]{AFTER}"),
        is_resident_id,
    ),
    Kind(
        "a US social security number",
        r"(?-u)[0-9]{3}-[0-9]{2}-[0-9]{4}",
        re.compile(rf"{BEFORE}[0-9]{{3}}-[0-9]{{2}}-[0-9]{{4}}{AFTER}"),
        is_ssn,
    ),
    Kind(
        "a public IPv4 address",
        r"(?-u)[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]",
        re.compile(rf"{BEFORE}{OCTET}(?:\.{OCTET}){{3}}{AFTER}(?!\.in-addr)"),
        is_public_ipv4,
    ),
)


def personal_data_of_texts(texts: pl.Series) -> dict[int, str]:
    """The first kind of personal data in each text that has any, by its index; never the data itself."""
    found: dict[int, str] = {}
    for kind in KINDS:
        rows = texts.str.contains(kind.hint).fill_null(False).arg_true()
        for row, text in zip(rows, texts.gather(rows), strict=True):
            if row not in found and any(map(kind.genuine, kind.pattern.finditer(text))):
                found[row] = kind.name
    return found
