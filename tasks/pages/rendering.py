"""Jinja templates that become HTML: everything is escaped, and a name that is not defined raises."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tasks.pages.text import NAME_CHARACTERS, one_line


def isolated(text: object, max_characters: int = NAME_CHARACTERS) -> Markup:
    """One bounded line of text as HTML whose writing direction does not affect its surroundings; empty stays empty."""
    line = one_line(text, max_characters)
    return Markup("<bdi>{}</bdi>").format(line) if line else Markup("")


def thousands(number: float) -> str:
    """A number with its thousands separated; text stays as it is."""
    return number if isinstance(number, str) else f"{number:,}"


@cache
def environment() -> Environment:
    """The templates of this folder with their filters."""
    templates = Environment(
        loader=PackageLoader("tasks.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"isolated": isolated, "one_line": one_line, "thousands": thousands}
    return templates


def render(template: str, **values: object) -> Markup:
    """The HTML of a template. Raises jinja2.UndefinedError if it names a value that is missing."""
    return Markup(environment().get_template(template).render(**values))
