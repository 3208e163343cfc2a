"""What the pages say, in both languages, from one catalogue: `templates/nights/words.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from markupsafe import Markup, escape

from tasks.pages.rendering import isolated
from tasks.pages.text import one_line

LANGUAGES = {"en": "English", "zh-CN": "中文"}
"""By the code that HTML gives them, in the order in which a page offers them."""
CATALOGUE = "templates/nights/words.toml"
VALUE_CHARACTERS = 500
"""Most characters of a value in a sentence, and of a text that is shown as it was given."""


@dataclass(frozen=True)
class Phrase:
    """A sentence of the catalogue, and the values of its `{fields}`: plain text, or phrases themselves."""

    key: str
    values: Mapping[str, object] = field(default_factory=dict)

    def in_language(self, language: str) -> Markup:
        """As HTML. Raises KeyError if the catalogue has no such sentence, or a field has no value."""
        told = {
            name: value.in_language(language) if isinstance(value, Phrase) else isolated(value, VALUE_CHARACTERS)
            for name, value in self.values.items()
        }
        return escape(catalogue()[self.key][language]).format(**told)

    def as_plain(self, language: str) -> str:
        """As text for an attribute, which holds no markup; templates escape it."""
        told = {
            name: value.as_plain(language) if isinstance(value, Phrase) else one_line(value, VALUE_CHARACTERS)
            for name, value in self.values.items()
        }
        return catalogue()[self.key][language].format(**told)


def phrase(key: str, /, **values: object) -> Phrase:
    """The sentence of this key with its values."""
    return Phrase(key, values)


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """Every sentence by `group.name`, in every language."""
    text = (files("tasks.pages") / CATALOGUE).read_text(encoding="utf-8")
    groups = tomllib.loads(text)
    return {f"{group}.{name}": said for group, named in groups.items() for name, said in named.items()}


def say(what: Phrase | str | int | None) -> Markup:
    """A phrase in every language, of which the page shows one; other text as it was given, one bounded line."""
    if what is None:
        return Markup("–")
    if not isinstance(what, Phrase):
        return isolated(what, VALUE_CHARACTERS)
    said = {language: what.in_language(language) for language in LANGUAGES}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return Markup("").join(Markup('<span lang="{}">{}</span>').format(code, text) for code, text in said.items())


def say_key(key: str, /, **values: object) -> Markup:
    """The sentence of a key in every language; for templates."""
    return say(Phrase(key, values))


def say_plain(what: Phrase | str) -> str:
    """In every language, one after the other: for names of drawings, which no style sheet can choose from."""
    if not isinstance(what, Phrase):
        return one_line(what, VALUE_CHARACTERS)
    return " · ".join(dict.fromkeys(what.as_plain(language) for language in LANGUAGES))


def say_in_svg(what: Phrase | str) -> Markup:
    """The same as `say` inside a text of an SVG."""
    if not isinstance(what, Phrase):
        return escape(one_line(what))
    texts = {code: escape(what.as_plain(code)) for code in LANGUAGES}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return Markup("").join(Markup('<tspan lang="{}">{}</tspan>').format(code, said) for code, said in texts.items())
