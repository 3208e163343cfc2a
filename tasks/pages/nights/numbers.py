"""Numbers and names as these pages write them, alike in both languages."""

from __future__ import annotations

import math

MINUTE, HOUR, DAY = 60, 3600, 86400
BPB_DECIMALS = 4


def known(number: object) -> float | None:
    """A number that can be drawn: None for what is missing, no number, or not finite."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return None
    return float(number)


def signed(number: float | None) -> str:
    """A difference in bits per byte with its sign; a dash for none. A minus is as wide as a plus."""
    return "–" if number is None else f"{number:+.{BPB_DECIMALS}f}".replace("-", "\u2212")


def short_number(number: float) -> str:
    """At most four digits: 1.853, 12.3, 4.51k, 1.4e-5."""
    if number and (abs(number) < 0.001 or abs(number) >= 1e12):
        mantissa, exponent = f"{number:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.4g}"


def long_time(seconds: float | None) -> str:
    """A duration in its two largest units: 42 s, 3 min 05 s, 2 h 10 min, 3 d 04 h."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE:02d} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE:02d} min"
    return f"{whole // DAY} d {whole % DAY // HOUR:02d} h"


def css_name(text: str) -> str:
    """A word that can be a class of CSS."""
    return "".join(character if character.isascii() and character.isalnum() else "-" for character in text)
