"""Both languages say everything, with the same values in it, and no value can break out of its sentence."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tasks.pages
from tasks.pages.nights.words import LANGUAGES, Phrase, catalogue, phrase, say, say_in_svg, say_key, say_plain

FOLDER = Path(tasks.pages.__file__).parent
HOSTILE = "<script>alert(1)</script>\"'&\u202e{0.__class__}"


def fields_of(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_every_sentence_is_there_in_every_language_with_the_same_fields() -> None:
    for key, said in catalogue().items():
        assert set(said) == set(LANGUAGES), key
        assert all(text.strip() for text in said.values()), key
        assert len({frozenset(fields_of(text)) for text in said.values()}) == 1, key
        assert re.search(r"[\u4e00-\u9fff]", said["zh-CN"]), f"{key} is not in Chinese"


def test_every_sentence_that_is_asked_for_is_there_and_every_one_there_is_asked_for() -> None:
    files = [*(FOLDER / "nights").glob("*.py"), *(FOLDER / "templates" / "nights").glob("*.j2")]
    files += [FOLDER.parent / "night" / "page.py"]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    asked = set(re.findall(r"""(?:say|phrase)\(\s*["']([a-z_]+\.[a-z_]+)["']""", text))
    assert asked - set(catalogue()) == set()
    computed = set(re.findall(r"""(?:say|phrase)\(\s*f?["']([a-z_]+)\.["{]""", text)) | {"check"}
    unused = {key for key in set(catalogue()) - asked if key.partition(".")[0] not in computed}
    assert {key for key in unused if f'"{key}"' not in text} == set()


def test_a_sentence_without_a_value_or_a_key_is_an_error() -> None:
    with pytest.raises(KeyError):
        say_key("worked.yes")
    with pytest.raises(KeyError):
        say_key("no.such")


@settings(max_examples=60)
@given(value=st.text(max_size=40) | st.just(HOSTILE))
def test_no_value_breaks_out_of_its_sentence(value: str) -> None:
    told = phrase("missing.champion_gone", version=value)
    for html in (say(told), say_in_svg(told)):
        assert re.fullmatch(r"(<(span|tspan) lang=\"[\w-]+\">([^<>]|</?bdi>)*</\2>)+", str(html), flags=re.DOTALL)
    assert "\u202e" not in say_plain(told)


def test_phrases_inside_phrases_are_in_the_same_language() -> None:
    told = phrase("better.no", difference="+0.1", than="3", bounds=phrase("better.no_bounds"))
    english, chinese = (told.in_language(language) for language in LANGUAGES)
    assert "without an interval" in english and "没有区间" in chinese and "without" not in chinese


def test_what_is_alike_in_both_languages_is_said_once() -> None:
    assert say("plain <b>") == "<bdi>plain &lt;b&gt;</bdi>"
    assert say(None) == "–"
    assert isinstance(phrase("worked.waits"), Phrase)
