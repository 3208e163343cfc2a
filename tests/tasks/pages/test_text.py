"""Words for people: one of a kind is singular, and keys are as Prefect takes them."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import tasks
from tasks.pages.text import artifact_key, markdown_line, plural


def test_one_is_singular() -> None:
    assert [plural(n, "document") for n in (0, 1, 2, 2_000)] == [
        "0 documents", "1 document", "2 documents", "2,000 documents",
    ]  # fmt: skip


@given(recipe=st.text())
def test_artifact_keys_hold_what_prefect_takes(recipe: str) -> None:
    assert re.fullmatch("([a-z0-9]+-)*night", artifact_key(recipe, "night"))


def test_a_folder_of_a_stage_is_no_address_of_mail() -> None:
    assert markdown_line("data/validate@8179148ee44a.partial") == r"data/validate\@8179148ee44a.partial"
    assert markdown_line("@you") == "@you"


COUNT = r"\{[^{}]*(?:len\(|:,)[^{}]*\}(?: \w+)? "
NOUNS = "rows|lines|files|runs|documents|steps|slices|clusters|sources|versions|calls|addresses|processes|seeds|copies"
NEVER_ONE = ("is the end of", "is the beginning of", "rows bear this name", "if len(steps) == 1")
"""Said of several alone."""


def test_what_is_counted_is_never_a_fixed_plural() -> None:
    """Else a person reads `1 rows`; `plural` says it right."""
    root = Path(tasks.__file__).parent.parent
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for package in ("flows", "tasks")
        for path in sorted((root / package).rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(rf"{COUNT}(?:{NOUNS})\b", line) and not any(told in line for told in NEVER_ONE)
    ]
    assert found == []
