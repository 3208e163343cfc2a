"""Keys of a row or a turn that say something: honoured, or named; what holds nothing is no reason to refuse."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.adapters import HONOURED, Format, check_rows
from schemas.report import Checked
from schemas.rows import MEANT_BESIDE_TURNS, MEANT_ELSEWHERE, WEIGHT_KEYS
from tests.reference.shapes import ROWS

Row = dict[str, Any]
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
nothing = st.sampled_from([None, "", [], {}])
something = st.sampled_from([0, 0.5, False, "x", ["x.png"], [None], {"path": "x"}])


def outcome(row: Row, shape: Format = "openai", kind: str = "chat", merge_turns: bool = False) -> Checked:
    return check_rows([row], kind, shape, merge_turns)


@given(st.sampled_from(sorted({*MEANT_ELSEWHERE, *MEANT_BESIDE_TURNS})), nothing, something, st.sampled_from([*ROWS]))
def test_a_key_that_means_something_elsewhere_is_named_if_it_holds_something(
    key: str, empty: object, value: object, shape: Format
) -> None:
    row = ROWS[shape](TURNS)
    assert outcome(row | {key: empty}, shape).faults == {}
    assume((key, shape) != HONOURED)
    fault = outcome(row | {key: value}, shape).faults[0]
    assert (fault.rule, fault.detail.startswith(f"{key}: ")) == ("row_keys_unsupported", True)
    assert outcome(row | {key: value}, shape, "pretrain").faults[0] == fault or shape == "minimind"


@pytest.mark.parametrize("key", MEANT_ELSEWHERE)
def test_plain_text_with_pictures_is_named_too(key: str) -> None:
    for shape in ("minimind", "text"):
        assert outcome({"text": "<image>", key: ["a.png"]}, shape, "pretrain").faults[0].rule == "row_keys_unsupported"
        assert outcome({"text": "words", key: []}, shape, "pretrain").faults == {}


def test_the_column_that_alpaca_calls_input_is_not_lost() -> None:
    row = {"instruction": "q", "output": "a", "context": "c"}
    assert outcome(row, "alpaca").faults[0].detail == "context: name it `input`"
    assert outcome(row | {"context": ""}, "alpaca").faults == {}


def test_harmless_keys_pass() -> None:
    beside = {"id": 0, "source": "web", "meta": {"a": 1}, "score": 0.5, "weight": 1, "train": True, "label": False}
    assert outcome({"messages": TURNS} | beside).faults == {}


def answers(*weights: Row) -> Row:
    return {"messages": [turn for weight in weights for turn in (TURNS[0], TURNS[1] | weight)]}


@pytest.mark.parametrize("value", [0, 0.0, False])
@pytest.mark.parametrize("key", WEIGHT_KEYS)
def test_an_answer_of_weight_0_is_context(key: str, value: object) -> None:
    row = answers({key: value}, {key: True}, {})
    [conversation] = outcome(row).good["conversations"].to_list()
    assert [turn["learned"] for turn in conversation] == [False, False, False, True, False, True]
    assert outcome(row, kind="pretrain").faults[0].rule == "turn_weight_unsupported"
    asked = {"messages": [TURNS[0] | {key: value}, TURNS[1]]}
    assert outcome(asked).good["conversations"].to_list()[0][1]["learned"]


def calls(name: str, **more: object) -> Row:
    return {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": {}}}], **more}


def contents(row: Row, merge_turns: bool) -> list[str]:
    checked = outcome(row, merge_turns=merge_turns)
    assert checked.faults == {}
    assert checked.merged == ({0} if len(checked.good["conversations"][0]) < len(row["messages"]) else set())
    return [turn["content"] for turn in checked.good["conversations"].to_list()[0]]


RESULT = {"role": "tool", "content": "1"}
CALL = '<tool_call>\n{{"name": "{}", "arguments": {{}}}}\n</tool_call>'


@pytest.mark.parametrize("merge_turns", [False, True])
def test_calls_in_a_row_are_calls_of_one_answer(merge_turns: bool) -> None:
    row = {"messages": [TURNS[0], calls("f"), calls("g"), {"role": "assistant", "content": "a"}]}
    before = row["messages"][:3]
    found = outcome({"messages": [*before, RESULT, RESULT, TURNS[1]]}, merge_turns=merge_turns)
    [turns] = found.good["conversations"].to_list()
    assert turns[1]["content"] == f"{CALL.format('f')}\n{CALL.format('g')}"
    assert (len(turns), found.merged) == (4, {0})
    spoken = {"messages": [TURNS[0], TURNS[1], calls("f")]}
    assert contents(spoken, merge_turns) == ["q", f"a\n{CALL.format('f')}"]


def test_other_turns_of_one_role_are_merged_where_the_source_says_so() -> None:
    twice = {"messages": [TURNS[0], TURNS[0], TURNS[1], TURNS[1]]}
    assert contents(twice, True) == ["q\nq", "a\na"]
    fault = outcome(twice).faults[0]
    assert fault.rule == "conversation_order" and "merge_turns" in fault.detail
    after_a_result = {"messages": [TURNS[0], calls("f"), RESULT, TURNS[0], TURNS[1]]}
    assert contents(after_a_result, True)[2] == "<tool_response>\n1\n</tool_response>\nq"


@pytest.mark.parametrize(
    ("messages", "rule"),
    [
        ([TURNS[0], TURNS[1] | {"weight": 0}, TURNS[1]], "conversation_order"),
        ([TURNS[0], calls("f", weight=0), calls("g")], "conversation_order"),
        ([{"role": "system", "content": "s"}] * 2 + TURNS, "conversation_order"),
        ([TURNS[0], {"role": "user", "content": " "}, TURNS[1]], "content_blank"),
        ([TURNS[0], {"role": "user"}, TURNS[1]], "content_missing"),
        ([TURNS[0], TURNS[0] | {"audio": 0}, TURNS[1]], "turn_keys_unsupported"),
    ],
)
def test_what_has_no_one_meaning_is_not_merged(messages: list[Row], rule: str) -> None:
    assert outcome({"messages": messages}, merge_turns=True).faults[0].rule == rule


@given(st.lists(st.sampled_from(["user", "assistant"]), min_size=1, max_size=6), st.sampled_from([*ROWS][:3]))
def test_merging_keeps_every_word_in_its_order(roles: list[str], shape: Format) -> None:
    turns = [{"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles)]
    checked = outcome(ROWS[shape](turns), shape, merge_turns=True)
    assert (checked.faults == {}) == (roles[0] == "user" and "assistant" in roles)
    for conversation in checked.good["conversations"].to_list():
        assert "\n".join(turn["content"] for turn in conversation) == "\n".join(turn["content"] for turn in turns)
        assert [turn["role"] for turn in conversation] == [r for n, r in enumerate(roles) if roles[n - 1 : n] != [r]]
