"""The templates of these pages, which share one base: with the catalogue's words as filters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from model.files import write_text
from tasks.pages import rendering
from tasks.pages.nights.numbers import css_name, long_time, short_number, signed
from tasks.pages.nights.words import LANGUAGES, Phrase, say, say_in_svg, say_key, say_plain
from tasks.pages.text import format_bytes

TALLEST_TEXT = 4_000
"""Most characters of a text that keeps its lines."""


@cache
def environment() -> Environment:
    """The templates of all pages, and what those of nights need beside."""
    own = rendering.environment().overlay()
    own.filters = own.filters | {
        "say": say, "say_svg": say_in_svg, "say_plain": say_plain, "many_lines": many_lines, "as_it_is": as_it_is,
        "signed": signed,
        "size": format_bytes, "long_time": long_time, "short": short_number, "css_name": css_name,
    }  # fmt: skip
    own.globals = own.globals | {"say": say_key, "phrase": Phrase, "languages": LANGUAGES}
    return own


def write_page(path: Path, template: str, **values: object) -> Path:
    """Render a template into one self-contained file, written atomically; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, environment().get_template(template).render(**values))
    return path


def many_lines(text: str) -> Markup:
    """Text of a model with its lines, without characters that cannot be shown or turn the page around."""
    shown = text if len(text) <= TALLEST_TEXT else f"{text[: TALLEST_TEXT - 1]}…"
    return Markup('<p class="many" dir="auto">{}</p>').format(as_it_is(shown.strip()))


def as_it_is(text: str) -> str:
    """Text with its lines and spaces, without characters that cannot be shown or turn the page around."""
    return "".join(printable(text))


def printable(text: str) -> Iterator[str]:
    for character in text:
        yield character if character.isprintable() or character == "\n" else " " if character == "\t" else "\ufffd"
