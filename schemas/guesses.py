"""What people probably meant: the encoding of bytes that are no UTF-8, the setting that reads a row."""

from __future__ import annotations

import re
from collections.abc import Mapping

COMMON: Mapping[str, str] = {
    "GB18030": "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过，。",
    "BIG5": "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過，。",
    "SHIFT_JIS": "のにはをたがでてとしれさいるあんなっすりまこうかきくも、。",
    "EUC-JP": "のにはをたがでてとしれさいるあんなっすりまこうかきくも、。",
    "EUC-KR": "이다는의에을를가고하지은한도로서기나사아자시리인어",
}
"""Encodings by the names that iconv knows, with the commonest letters of texts in them."""
LEAST_COMMON_SHARE = 0.12
CYRILLIC = "оеаинтсрвлкмдпуяыгзб"
WESTERN = "éèêàâçëîïôûùüöäßñóíáúãõåæøœ’“”–—…«»¿¡°£€"
SETTINGS = (
    (r'"conversations"\s*:\s*\[.*(?:"from"\s*:.*"value"\s*:|"value"\s*:.*"from"\s*:)', "sharegpt"),
    (r'"messages"\s*:\s*\[', "openai"),
    (r'"conversations"\s*:\s*\[', "minimind"),
    (r'"instruction"\s*:', "alpaca"),
    (r'"(?:text|content)"\s*:\s*"', "text"),
)
"""What a row of each format holds; the first that fits is it."""
ARRAY, TURN = "array", "turn"
"""What a line may be that is a row of no format."""
CURES = {
    ARRAY: 'Its rows are bare arrays: make each an object, {"conversations": [turns]}.',
    TURN: 'Its rows are single turns: make each conversation a row, {"conversations": [turns]}.',
    "text": "Its rows look like plain text: set `kind: pretrain` for the source.",
}


def likely_encoding(data: bytes) -> str | None:
    """The encoding that makes common letters of bytes that are no UTF-8; None if none does.

    In those of one byte a letter any bytes mean something: Russian has them side by side, Western words one by one.
    """
    shares = {encoding: common_share(data, encoding, common) for encoding, common in COMMON.items()}
    best = max(shares, key=shares.__getitem__)
    if shares[best] >= LEAST_COMMON_SHARE:
        return best
    if common_share(data, "cp1251", CYRILLIC) > 0.6:
        return "WINDOWS-1251"
    alone = re.findall(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])", data)
    high = re.findall(rb"[\x80-\xff]", data)
    return "WINDOWS-1252" if len(alone) > 0.7 * len(high) and common_share(data, "cp1252", WESTERN) > 0.6 else None


def common_share(data: bytes, encoding: str, common: str) -> float:
    """Share of the letters beyond ASCII that are common ones; -1 if the bytes are not of the encoding."""
    try:
        letters = [letter for letter in data.decode(encoding) if letter > "\x7f"]
    except UnicodeDecodeError:
        return -1
    return sum(letter in common for letter in letters) / max(1, len(letters))


def other_shape(row: str, kind: str, row_format: str) -> str:
    """The format that a row seems to be of, ARRAY or TURN; empty if it is that of its source, or nothing is known.

    `row`: JSON, perhaps its beginning alone.
    """
    if kind == "chat" and re.match(r"\s*\[\s*[\[{]", row):
        return ARRAY
    if kind == "chat" and re.match(r'\s*\{[^\[{]*"(?:role|from)"\s*:', row):
        return TURN
    likely = next((name for pattern, name in SETTINGS if re.search(pattern, row, re.DOTALL)), "")
    if likely == "text" and kind == "chat":
        return likely
    fits = likely == row_format or (row_format == "minimind" and likely in ("sharegpt", "text"))
    return "" if fits else likely


def likely_setting(row: str, kind: str, row_format: str) -> str:
    """How a source's setting should read for a row, or what should become of its rows; empty if it fits."""
    shape = other_shape(row, kind, row_format)
    if shape in CURES and kind == "chat":
        return CURES[shape]
    return f"Its rows look like those of another format: set `format: {shape}` for the source." if shape else ""
