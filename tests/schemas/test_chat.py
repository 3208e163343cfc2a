from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.adapters import check_rows
from schemas.report import Checked
from tests.reference.rows import is_good_chat

Turns = list[dict[str, Any]]


def check_chat(rows: list[dict[str, Any]]) -> Checked:
    return check_rows(rows, "chat", "minimind")


def turns(*roles: str) -> Turns:
    return [{"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles)]


def with_turn(**changes: object) -> Turns:
    """A good conversation whose answer is changed; None removes a key."""
    question, answer = turns("user", "assistant")
    return [question, {key: value for key, value in (answer | changes).items() if value is not None}]


def canonical(conversation: Turns) -> Turns:
    return [
        {"role": turn["role"], "content": turn["content"], "learned": turn["role"] == "assistant"}
        for turn in conversation
    ]


GOOD_ROW = {"conversations": turns("user", "assistant")}
FAULTS: list[tuple[object, str]] = [
    (None, "conversations_missing"),
    ("user: hi", "conversations_missing"),
    ({"role": "user", "content": "hi"}, "conversations_missing"),
    (["hi", "hello"], "conversations_missing"),
    ([*turns("user", "assistant"), None], "conversations_missing"),
    ([], "conversation_empty"),
    (with_turn(role=None), "role_missing"),
    (with_turn(role=1), "role_missing"),
    (with_turn(role="Assistant"), "role_unknown"),
    (with_turn(role="narrator"), "role_unknown"),
    (with_turn(role="user assistant"), "role_unknown"),
    (with_turn(content=None), "content_missing"),
    (with_turn(content=["a"]), "content_missing"),
    (with_turn(content=""), "content_blank"),
    (with_turn(content=" \n\t"), "content_blank"),
    (with_turn(content="a\x00b"), "content_control_characters"),
    (with_turn(content="a\x1bb"), "content_control_characters"),
    (with_turn(content="a \ufffd\ufffd"), "content_undecodable"),
    (with_turn(audio=[{"id": 1}]), "turn_keys_unsupported"),
    (with_turn(weight=0.5), "turn_weight_unsupported"),
    (with_turn(weight=0), "conversation_not_learned"),
    (with_turn(train=False), "conversation_not_learned"),
    (turns("assistant"), "conversation_order"),
    (turns("assistant", "user", "assistant"), "conversation_order"),
    (turns("user", "user", "assistant"), "conversation_order"),
    (turns("user", "assistant", "assistant"), "conversation_order"),
    (turns("user", "system", "assistant"), "conversation_order"),
    (turns("system", "system", "user", "assistant"), "conversation_order"),
    (turns("system", "assistant"), "conversation_order"),
    (turns("user"), "conversation_unanswered"),
    (turns("system"), "conversation_unanswered"),
    (turns("system", "user"), "conversation_unanswered"),
]
GOOD = [
    turns("user", "assistant"),
    turns("system", "user", "assistant"),
    turns("user", "assistant", "user", "assistant"),
    turns("user", "assistant", "user"),
    with_turn(content="naïve 🙂\n\tindented\r\n"),
    with_turn(tool_calls=[], reasoning_content="", tools={}, audio=[]),
    with_turn(weight=1),
    with_turn(weight=1.0, train=True),
    with_turn(content="<|im_end|>\n<|im_start|>user"),
    with_turn(content="one \ufffd among nineteen more"),
]


@pytest.mark.parametrize(("conversation", "rule"), FAULTS)
def test_a_bad_conversation_is_named_and_spares_its_neighbours(conversation: object, rule: str) -> None:
    checked = check_chat([GOOD_ROW, {"conversations": conversation}, GOOD_ROW])
    assert {row: fault.rule for row, fault in checked.faults.items()} == {1: rule}
    assert 0 < len(checked.faults[1].detail) <= 200
    assert checked.good["row"].to_list() == [0, 2]


def test_a_row_without_the_key_is_named() -> None:
    assert check_chat([{"messages": turns("user", "assistant")}]).faults[0].rule == "conversations_missing"


@pytest.mark.parametrize("conversation", GOOD)
def test_a_good_conversation_passes_with_roles_and_contents_alone(conversation: Turns) -> None:
    checked = check_chat([{"conversations": conversation, "source": "web"}])
    assert checked.faults == {}
    assert checked.good.to_dicts() == [{"row": 0, "conversations": canonical(conversation)}]


def test_a_row_with_several_faults_has_one() -> None:
    checked = check_chat([{"conversations": [{"role": "narrator", "content": ""}, {"role": None, "x": 1}]}])
    assert len(checked.faults) == 1
    assert checked.good.is_empty()


contents = st.one_of(st.text(max_size=4), st.sampled_from(["hi", "a\x00", " "]), st.none(), st.integers())
roles = st.one_of(st.sampled_from(["system", "user", "assistant", "narrator"]), st.none(), st.integers())
any_turn = st.fixed_dictionaries({}, optional={"role": roles, "content": contents, "extra": st.sampled_from(["", "x"])})
good_turns = st.sampled_from(GOOD)
nearly_good = st.tuples(good_turns, st.integers(0, 3), any_turn).map(lambda t: [*t[0][: t[1]], t[2], *t[0][t[1] :]])
conversations = st.one_of(good_turns, nearly_good, st.lists(any_turn, max_size=3), st.none(), st.just(["hi"]))


@given(st.lists(st.fixed_dictionaries({}, optional={"conversations": conversations}), max_size=8))
def test_every_row_is_good_or_faulty_as_the_plain_predicate_says(rows: list[dict[str, Any]]) -> None:
    checked = check_chat(rows)
    good = [index for index, row in enumerate(rows) if is_good_chat(row)]
    assert checked.good["row"].to_list() == good
    assert checked.faults.keys() == set(range(len(rows))) - set(good)
    assert len(checked.good) + len(checked.faults) == len(rows)
    for index, kept in zip(good, checked.good["conversations"].to_list(), strict=True):
        assert kept == canonical(rows[index]["conversations"])


def test_no_rows_are_no_faults() -> None:
    checked = check_chat([])
    assert (checked.good.rows(), checked.faults) == ([], {})
    assert checked.good.columns == ["row", "conversations"]
