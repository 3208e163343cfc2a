"""Every file and test that the page of techniques names is there, in both languages."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"docs/techniques.md": "not built yet: ", "docs/zh/techniques.md": "尚未实现："}
"""With the words that a reason begins with."""
TECHNIQUES = 33


class Row(NamedTuple):
    technique: str
    does: str
    files: list[str]
    tests: list[str]
    reason: str


def rows(page: str) -> list[Row]:
    """The table of a page, without its heading."""
    found = []
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            technique, does, where, last = (cell.strip() for cell in line.strip("|").split("|"))
            named = re.findall(r"`(tests/[^`]+)`", last)
            found.append(Row(technique, does, re.findall(r"`([^`]+)`", where), named, last.rpartition("<br>")[2]))
    return found[2:]


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_both_languages_name_the_same_files_and_tests() -> None:
    english, chinese = (rows(page) for page in PAGES)
    assert len(english) == len(chinese) == TECHNIQUES
    for one, other in zip(english, chinese, strict=True):
        assert (one.files, one.tests) == (other.files, other.tests), f"{one.technique} / {other.technique}"


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_is_there(page: str) -> None:
    for row in rows(page):
        assert [file for file in row.files if not (ROOT / file).is_file()] == [], row.technique
        for name in row.tests:
            file, _, test = name.partition("::")
            assert test.startswith("test_"), name
            assert test in functions_of(file), name


@pytest.mark.parametrize("page", PAGES)
def test_every_technique_has_a_test_or_a_reason(page: str) -> None:
    table = rows(page)
    assert len({row.technique for row in table}) == TECHNIQUES
    for row in table:
        assert row.tests or row.reason.startswith(PAGES[page]), row.technique
        assert bool(row.tests) == bool(row.files), f"{row.technique}: what is built is somewhere, and tested"


def test_both_languages_lack_the_same() -> None:
    lacking = [[row.reason.startswith(reason) for row in rows(page)] for page, reason in PAGES.items()]
    assert lacking[0] == lacking[1]
