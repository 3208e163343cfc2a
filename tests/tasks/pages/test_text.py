"""Words for people: one of a kind is singular, and keys are as Prefect takes them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from tasks.pages.text import artifact_key, plural


def test_one_is_singular() -> None:
    assert [plural(n, "document") for n in (0, 1, 2, 2_000)] == [
        "0 documents", "1 document", "2 documents", "2,000 documents",
    ]  # fmt: skip


@given(recipe=st.text())
def test_artifact_keys_hold_what_prefect_takes(recipe: str) -> None:
    assert re.fullmatch("([a-z0-9]+-)*night", artifact_key(recipe, "night"))
