"""Scores compare models only where neither can have learnt tonight's validation documents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.recipes.data_identity import DataIdentity, why_not_comparable
from tasks.recipes.recipe import data_identity, recipe_from

NAMES = st.text("abcdef", min_size=1, max_size=4)
IDENTITIES = st.builds(
    DataIdentity,
    recipe=NAMES,
    split=st.fixed_dictionaries(
        {
            "split.val_share": st.sampled_from([0.02, 0.1]),
            "split.salt": NAMES,
            "deduplicate.near_threshold": st.none() | st.just(0.8),
        }
    ),
    sources=st.dictionaries(NAMES, st.text(max_size=200), max_size=6),
)


def identity(**changes: Any) -> DataIdentity:
    sources = [
        {"name": "text", "kind": "pretrain", "location": "text.jsonl"},
        {"name": "talk", "kind": "chat", "location": "talk.jsonl"},
    ]
    return data_identity(recipe_from({"name": "demo", "sources": sources} | changes))


@given(IDENTITIES)
def test_what_was_noted_is_read_back(noted: DataIdentity) -> None:
    assert DataIdentity.from_json(noted.as_json()) == noted
    assert why_not_comparable(noted, noted) == ""


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"recipe": 1}', '{"recipe":"a","split":3,"sources":{}}', "{"])
def test_what_somebody_else_wrote_is_no_identity(text: str) -> None:
    assert DataIdentity.from_json(text) is None
    assert "nothing says" in why_not_comparable(DataIdentity.from_json(text), identity())


@given(IDENTITIES, IDENTITIES)
def test_two_compare_only_if_the_older_ones_rows_are_parted_as_tonight(one: DataIdentity, other: DataIdentity) -> None:
    grown = set(one.sources.items()) <= set(other.sources.items())
    same = one.recipe == other.recipe and one.split == other.split and grown
    assert (why_not_comparable(one, other) == "") == same


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "toy"}, ["'demo'", "'toy'"]),
        ({"split": {"val_share": 0.1}}, ["split.val_share was 0.02 then and is 0.1 now"]),
        ({"split": {"salt": "pepper"}}, ["split.salt was 'nightschool' then and is 'pepper' now"]),
        ({"deduplicate": {"near_threshold": None}}, ["deduplicate.near_threshold was 0.8 then and is None now"]),
    ],
)
def test_the_reason_names_what_differs_and_both_values(changes: dict[str, Any], told: list[str]) -> None:
    reason = why_not_comparable(identity(), identity(**changes))
    assert all(part in reason for part in told)


def test_a_source_that_came_is_no_obstacle_and_one_that_went_or_moved_is() -> None:
    before = identity()
    assert why_not_comparable(before, replace(before, sources={**before.sources, "new": "new.jsonl"})) == ""
    gone = replace(before, sources={"talk": before.sources["talk"]})
    assert "source text was 'text.jsonl' then and is 'none' now" in why_not_comparable(before, gone)
    moved = replace(before, sources={**before.sources, "text": "other.jsonl"})
    assert "source text was 'text.jsonl' then and is 'other.jsonl' now" in why_not_comparable(before, moved)
    many = replace(before, sources={f"s{n}": "x" for n in range(9)})
    assert "; 6 more differ" in why_not_comparable(many, before)
