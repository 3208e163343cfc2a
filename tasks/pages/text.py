"""Text and numbers as people read them: one bounded line, escaped for markdown, quantities with their units."""

from __future__ import annotations

import html
import re

NAME_CHARACTERS = 80
"""Most characters of a name; longer text is cut."""
SHOWN_BY_BAR = "shown_by_bar"
"""Attribute of log records that a terminal does not show, as a bar there says the same."""
RUN_NAME_CHARACTERS = 100
"""Most characters of what a run is called in MLflow and in Prefect."""
MARKDOWN_SYNTAX = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])|(?<=\w)@(?=\w)")
"""Characters that mean something inside a line of markdown. An underscore between letters does not, see CommonMark;
what stands around an @ would be taken for an address of mail."""


def one_line(text: object, max_characters: int = NAME_CHARACTERS) -> str:
    """Text on one line of at most `max_characters`, without characters that a terminal or a file cannot show.

    Characters that are not printable are replaced by U+FFFD: control characters, lone surrogates, and the marks that
    change the direction of the text around them.
    """
    line = " ".join(str(text)[: 4 * max_characters].split())
    line = "".join(character if character.isprintable() else "\ufffd" for character in line)
    return line if len(line) <= max_characters else line[: max_characters - 1] + "…"


def markdown_line(text: object, max_characters: int = NAME_CHARACTERS) -> str:
    """The same as markdown that shows the text as it is, inside a table too."""
    return MARKDOWN_SYNTAX.sub(r"\\\g<0>", html.escape(one_line(text, max_characters), quote=False))


def artifact_key(*words: str) -> str:
    """A key as Prefect's artifacts have it: small letters of English, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def plural(number: int, noun: str) -> str:
    """A number and what it counts: `1 document`, `2,000 documents`. `noun` is one that takes an s."""
    return f"{int(number):,} {noun}{'' if number == 1 else 's'}"


def format_bytes(num_bytes: int) -> str:
    """Bytes in the decimal unit that leaves one to three digits before the point."""
    value, unit = float(num_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.95:
            break
        value, unit = value / 1000, larger
    return f"{num_bytes:,} B" if unit == "B" else f"{value:,.1f} {unit}"


def format_share(part: float, whole: float) -> str:
    """A part in percent of the whole; empty without a whole."""
    return f"{part / whole:.1%}" if whole else ""


def format_ratio(numerator: float, denominator: float) -> str:
    """A quotient with two decimals; empty without a denominator."""
    return f"{numerator / denominator:.2f}" if denominator else ""
