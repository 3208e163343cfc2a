"""What the filters measure, character by character."""

from __future__ import annotations

import unicodedata
from collections import Counter

PROSE_MARKS = ".,;:!?'\"()-/%&"
CONSONANTS = set("bcdfgjklmnpqrstvwxz")
RARE_PAIRS = {
    first + second
    for firsts, seconds in [
        ("q", "bcdfghjkmnpqtvwxz"),
        ("fgjkmvwxyz", "q"),
        ("dghjkmsvwz", "x"),
        ("x", "jkrvz"),
        ("j", "xw"),
        ("v", "fwx"),
        ("w", "vx"),
    ]
    for first in firsts
    for second in seconds
}


def is_space(character: str) -> bool:
    return character.isspace() and character not in "\x1c\x1d\x1e\x1f"  # Python counts four separators more


def is_symbol(character: str) -> bool:
    if is_space(character) or character in "\u200c\u200d":
        return False
    if character.isascii() and not character.isalnum():
        return character not in PROSE_MARKS
    return unicodedata.category(character)[0] not in "LMNP"


def symbol_share(text: str) -> float:
    return share(sum(map(is_symbol, text)), len(text))


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def repeated_line_share(text: str) -> float:
    seen: set[str] = set()
    part = whole = 0
    for line in split(text, "\n"):
        while line and is_space(line[0]):
            line = line[1:]
        while line and is_space(line[-1]):
            line = line[:-1]
        whole += len(line)
        part += len(line) if line in seen else 0
        seen.add(line)
    return share(part, whole)


def split(text: str, separators: str) -> list[str]:
    pieces = [""]
    for character in text:
        if character in separators:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


def repeated_ngram_share(text: str) -> float:
    spaces = sum(map(is_space, text))
    if len(text) > 16 * (spaces + 1):
        units, n = [character for character in text if not is_space(character)], 10
    else:
        units, n = [word for word in split(text, "".join(filter(is_space, text))) if word], 5
    starts = range(len(units) - n + 1)
    counts = Counter(tuple(units[i : i + n]) for i in starts)
    covered = {i + k for i in starts for k in range(n) if counts[tuple(units[i : i + n])] > 1}
    return share(sum(len(units[i]) for i in covered), sum(map(len, units)))


def gibberish_score(text: str) -> float:
    bad = [character == "\ufffd" or unicodedata.category(character) == "Co" for character in text]
    for start, end in runs(text, lambda c: c.isascii() and (c.isalnum() or c in "+/")):
        if end - start >= 32:
            bad[start:end] = [True] * (end - start)
    for start, end in runs(text, lambda c: c.isascii() and c.isalpha()):
        if is_no_word(text[start:end].lower()):
            bad[start:end] = [True] * (end - start)
    for start in range(len(text)):
        length = misread_length(text, start)
        bad[start : start + length] = [True] * length
    return share(sum(bad), len(text))


def runs(text, belongs) -> list[tuple[int, int]]:
    """Start and end of each longest run of characters that belong."""
    bounds, start = [], 0
    for i in range(len(text) + 1):
        if i == len(text) or not belongs(text[i]):
            if i > start:
                bounds.append((start, i))
            start = i + 1
    return bounds


def is_no_word(word: str) -> bool:
    if any(set(word[i : i + 5]) <= CONSONANTS for i in range(len(word) - 4)):
        return True
    return any(word[i : i + 2] in RARE_PAIRS for i in range(len(word) - 1))


def misread_length(text: str, start: int) -> int:
    """Characters from `start` on that are one UTF-8 sequence read as Latin-1 or Windows-1252; 0 if they are none."""
    lead = ord(text[start])
    length = 2 if 0xC2 <= lead <= 0xDF else 3 if 0xE0 <= lead <= 0xEF else 4 if 0xF0 <= lead <= 0xF4 else 0
    rest = [single_byte(character) for character in text[start + 1 : start + length]]
    return length if len(rest) == length - 1 and all(0x80 <= byte <= 0xBF for byte in rest) else 0


def single_byte(character: str) -> int:
    if ord(character) < 256:
        return ord(character)
    return character.encode("cp1252", errors="replace")[0]


def luhn_check_digit(digits: str) -> str:
    """What to write behind `digits`."""
    doubled = {d: int(t) for d, t in zip("0123456789", "0246813579", strict=True)}
    total = sum(doubled[d] if i % 2 == 0 else int(d) for i, d in enumerate(reversed(digits)))
    return str(-total % 10)


def iban(country: str, account: str) -> str:
    """With its two check digits."""
    number = "".join(str("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(c)) for c in account + country + "00")
    return f"{country}{98 - int(number) % 97:02d}{account}"


def resident_check_character(digits: str) -> str:
    """ISO 7064 MOD 11-2, by its recursion."""
    remainder = 0
    for digit in digits:
        remainder = (remainder + int(digit)) * 2 % 11
    return "0123456789X"[(12 - remainder) % 11]
