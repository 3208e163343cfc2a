"""Rows of every shape become one; what would be lost or cannot be read is a fault, never an exception."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.adapters import FORMATS, Format, check_rows
from schemas.rows import TURNS
from tests.reference.conversations import conversations, minimind_rich, openai_rich, plain_turns, sharegpt_rich
from tests.reference.qwen3 import canonical
from tests.reference.shapes import ROWS, minimind_row

CHAT_FORMATS = ("minimind", "sharegpt", "openai", "alpaca")
Row = dict[str, Any]


def chat(row: Row, shape: Format) -> list[dict[str, str]]:
    """The canonical turns of a good row."""
    checked = check_rows([row], "chat", shape)
    assert checked.faults == {}
    return without_learned(checked.good["conversations"].to_list()[0])


def without_learned(turns: list[Row]) -> list[dict[str, str]]:
    """Roles and contents alone."""
    return [{key: turn[key] for key in ("role", "content")} for turn in turns]


def user(content: object) -> Row:
    return {"role": "user", "content": content}


def assistant(content: object, **more: object) -> Row:
    return {"role": "assistant", "content": content, **more}


def call(name: object = "look", arguments: object = '{"at": 1}') -> Row:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


CALLED = '<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>'


@given(st.lists(plain_turns, min_size=1, max_size=4), st.sampled_from(CHAT_FORMATS))
def test_plain_conversations_are_the_same_in_every_shape(many: list[list[dict[str, str]]], shape: Format) -> None:
    checked = check_rows([ROWS[shape](turns) for turns in many], "chat", shape)
    assert checked.faults == {}
    assert checked.good["row"].to_list() == list(range(len(many)))
    for turns, kept in zip(many, checked.good["conversations"].to_list(), strict=True):
        assert kept == [turn | {"learned": turn["role"] == "assistant"} for turn in turns]
    assert checked.good.schema["conversations"] == TURNS


@given(st.lists(st.tuples(plain_turns, st.booleans()), min_size=1, max_size=4))
def test_sharegpt_rows_are_known_without_a_format(many: list[tuple[list[dict[str, str]], bool]]) -> None:
    """Row by row, beside rows of the format that is meant where none is set."""
    checked = check_rows(
        [ROWS["sharegpt" if theirs else "minimind"](turns) for turns, theirs in many], "chat", "minimind"
    )
    assert checked.faults == {}
    expected = [[turn | {"learned": turn["role"] == "assistant"} for turn in turns] for turns, _ in many]
    assert checked.good.rows() == list(enumerate(expected))


@given(conversations)
def test_rich_conversations_read_as_the_slow_reference_writes_them(row: Row) -> None:
    expected = canonical(row["messages"], row["tools"])
    assert chat(openai_rich(row), "openai") == expected
    assert chat(minimind_rich(row), "minimind") == expected


@given(conversations)
def test_sharegpt_calls_and_observations_read_like_tool_calls_and_results(row: Row) -> None:
    messages = [
        message | {"reasoning_content": ""} | ({"content": None} if message.get("tool_calls") else {})
        for message in row["messages"]
    ]
    assert chat(sharegpt_rich(messages, row["tools"]), "sharegpt") == canonical(messages, row["tools"])


EXAMPLES: list[tuple[str, Row, list[tuple[str, str]]]] = [
    ("minimind", {"conversations": [user("2+2?"), assistant("\n4", reasoning_content="two and two\n")]},
     [("user", "2+2?"), ("assistant", "<think>\ntwo and two\n</think>\n\n4")]),
    ("minimind", {"conversations": [{"role": "system", "content": "", "tools": '[{"name": "é"}]'}, user("q"),
                                    assistant("", tool_calls='[{"name": "look", "arguments": {"at": 1}}]'),
                                    {"role": "tool", "content": "5"}, assistant("It is 5.")]},
     [("system", "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided "
       'with function signatures within <tools></tools> XML tags:\n<tools>\n{"name": "é"}\n</tools>\n\nFor each '
       "function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"
       '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'),
      ("user", "q"), ("assistant", CALLED), ("user", "<tool_response>\n5\n</tool_response>"),
      ("assistant", "It is 5.")]),
    ("openai", {"messages": [user("q"), assistant(None, tool_calls=[call(), call(arguments='{"at":1}')]),
                             {"role": "tool", "tool_call_id": "1", "name": "look", "content": "a"},
                             {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "b"}]},
                             assistant("done", refusal=None, tool_calls=[])]},
     [("user", "q"), ("assistant", CALLED + "\n" + CALLED.replace(": 1", ":1")),
      ("user", "<tool_response>\na\n</tool_response>\n<tool_response>\nb\n</tool_response>"), ("assistant", "done")]),
    ("openai", {"messages": [user("q"), assistant("See:", thinking="hm", reasoning="hm", tool_calls=[call()])]},
     [("user", "q"), ("assistant", f"<think>\nhm\n</think>\n\nSee:\n{CALLED}")]),
    ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "assistant", "value": "a"}],
                  "system": "s", "tools": "[]"},
     [("system", "s"), ("user", "q"), ("assistant", "a")]),
    ("sharegpt", {"conversations": [{"from": "user", "value": "q"}, {"from": "function_call", "value":
                                    '{"name": "look", "arguments": {"at": 1}}'}, {"from": "tool", "value": ""},
                                    {"from": "gpt", "value": "a"}]},
     [("user", "q"), ("assistant", CALLED), ("user", "<tool_response>\n\n</tool_response>"), ("assistant", "a")]),
    ("alpaca", {"instruction": "Add.", "input": "2 and 2", "output": "4", "history": None, "source": "x"},
     [("user", "Add.\n2 and 2"), ("assistant", "4")]),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "row", "turns"), EXAMPLES)
def test_examples(shape: Format, row: Row, turns: list[tuple[str, str]]) -> None:
    assert [(turn["role"], turn["content"]) for turn in chat(row, shape)] == turns


def answered(**more: object) -> Row:
    return {"conversations": [user("q"), assistant("a", **more)]}


FAULTS: list[tuple[str, Row, str]] = [
    *(("minimind", answered(tool_calls=calls), "tool_calls_invalid") for calls in (
        "no json", '"look"', "5", [5], 5, '{"name": "look"}', [{"arguments": {}}], [call(name=" ")], [call(name=None)],
        [call(arguments="[1]")], [call(arguments="1")], [call(arguments="{")], [call(arguments=None)],
        [call(arguments=[])], [call(), call(arguments="")], [{"function": "look"}], [call(arguments='{"a": NaN}')],
        '[{"name": "\\ud800"}]',
    )),
    *(("minimind", {"conversations": [{"role": "system", "content": "s", "tools": tools}, user("q"), assistant("a")]},
       "tools_invalid") for tools in ("no json", '"look"', '{"name": "look"}', ["look"], {"name": "look"}, 5, " ")),
    ("openai", {"tools": "look", "messages": [user("q"), assistant("a")]}, "tools_invalid"),
    ("sharegpt", {"tools": "look", "conversations": [{"from": "human", "value": "q"}]}, "tools_invalid"),
    ("minimind", answered(tool_calls=[call() | {"result": 5}]), "turn_keys_unsupported"),
    ("minimind", answered(tool_calls=[{"name": "look", "arguments": {}, "result": 5}]), "turn_keys_unsupported"),
    ("minimind", answered(tool_calls=[{"function": {"name": "look", "arguments": {}, "result": 5}}]),
     "turn_keys_unsupported"),
    *(("minimind", answered(weight=weight), "turn_weight_unsupported") for weight in (0.5, 2, -1, "0", [1])),
    ("minimind", answered(train="false"), "turn_weight_unsupported"),
    ("minimind", answered(weight=1, train=False), "turn_weight_unsupported"),
    *(("minimind", answered(audio=value), "turn_keys_unsupported") for value in (0, False, 0.0, [0], {"id": None})),
    *(("minimind", answered(tool_calls=value), "tool_calls_invalid") for value in (0, False)),
    *(("minimind", answered() | {"tools": value}, "tools_invalid") for value in (0, False)),
    ("openai", {"messages": [user("q"), assistant("a")], "system": 0}, "content_missing"),
    ("alpaca", {"instruction": "q", "input": 0, "output": "a"}, "content_missing"),
    ("alpaca", {"instruction": "q", "output": "a", "history": False}, "history_invalid"),
    ("minimind", answered(reasoning_content="x") | {"conversations": [
        user("q"), assistant("<think>\ny\n</think>\n\na", reasoning_content="x")]}, "turn_keys_unsupported"),
    ("openai", {"messages": [user("q"), assistant("a", tool_calls=[call()]), {"role": "tool", "content": [
        {"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:"}}]}, assistant("a")]},
     "content_parts_unsupported"),
    ("minimind", answered(tools=[{"name": "look"}]), "turn_keys_unsupported"),
    ("minimind", answered(reasoning_content=["because"]), "turn_keys_unsupported"),
    ("openai", {"messages": [user("q"), assistant("a", reasoning="x", thinking="y")]}, "turn_keys_unsupported"),
    ("openai", {"messages": [user("q") | {"tool_calls": [call()]}, assistant("a")]}, "turn_keys_unsupported"),
    ("openai", {"messages": [user("q") | {"name": "Ada"}, assistant("a")]}, "turn_keys_unsupported"),
    ("openai", {"messages": [user("q"), assistant("a", audio={"id": 1})]}, "turn_keys_unsupported"),
    ("openai", {"messages": [user([{"type": "image_url", "image_url": {}}]), assistant("a")]},
     "content_parts_unsupported"),
    ("openai", {"messages": [user([{"type": "text", "text": "q"}, {"type": "input_audio"}]), assistant("a")]},
     "content_parts_unsupported"),
    ("openai", {"messages": [user([{"type": "text", "text": None}]), assistant("a")]}, "content_missing"),
    ("openai", {"messages": [user(["q"]), assistant("a")]}, "content_missing"),
    ("openai", {"messages": [user([]), assistant("a")]}, "content_blank"),
    ("openai", {"messages": [user("q"), assistant(5, tool_calls=[call()])]}, "content_missing"),
    ("openai", {"messages": [user("q"), assistant(None, reasoning_content="hm")]}, "content_missing"),
    ("openai", {"messages": [user("q"), assistant("\n", reasoning_content="hm")]}, "content_blank"),
    ("openai", {"messages": [user("q"), assistant("", tool_calls=[call()]), {"role": "tool", "content": "b", "x": 1},
                             {"role": "tool", "content": "b"}, assistant("a")]}, "turn_keys_unsupported"),
    ("openai", {"messages": [user("q"), {"role": "tool", "content": "b"}, assistant("a")]}, "conversation_order"),
    ("openai", {"messages": [{"role": "function", "content": "q"}, assistant("a")]}, "role_unknown"),
    ("openai", {"messages": [{"role": ["user"], "content": "q"}, assistant("a")]}, "role_missing"),
    ("openai", {"conversations": [user("q"), assistant("a")]}, "conversations_missing"),
    ("openai", {"messages": [user("q"), assistant("a"), "b"], "tools": []}, "conversations_missing"),
    ("openai", {"messages": [], "tools": [{"name": "look"}], "system": "s"}, "conversation_empty"),
    ("sharegpt", {"conversations": [user("q"), assistant("a")]}, "role_missing"),
    ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "bing", "value": "a"}]}, "role_unknown"),
    ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "look"}]},
     "tool_calls_invalid"),
    ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": ""}]},
     "content_missing"),
    ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": 5},
     "content_missing"),
    ("sharegpt", {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"},
                                    {"from": "gpt", "value": "a"}], "system": "s"}, "conversation_order"),
    ("alpaca", {"output": "a"}, "content_missing"),
    ("alpaca", {"instruction": "q"}, "content_missing"),
    ("alpaca", {"instruction": "q", "input": ["x"], "output": "a"}, "content_missing"),
    ("alpaca", {"instruction": "", "input": "", "output": "a"}, "content_blank"),
    ("alpaca", {"instruction": "q", "output": "a", "history": "before"}, "history_invalid"),
    ("alpaca", {"instruction": "q", "output": "a", "history": [["only a question"]]}, "history_invalid"),
    ("alpaca", {"instruction": "q", "output": "a", "history": [["q", None]]}, "content_missing"),
    ("text", {"text": "a"}, "conversations_missing"),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "row", "rule"), FAULTS)
def test_what_cannot_be_read_or_would_be_lost_is_named(shape: Format, row: Row, rule: str) -> None:
    for kind in ("chat", "pretrain") if shape in CHAT_FORMATS and shape != "minimind" else ("chat",):
        checked = check_rows([row], kind, shape)
        assert {index: fault.rule for index, fault in checked.faults.items()} == {0: rule}
        assert 0 < len(checked.faults[0].detail) <= 200
        assert checked.good.is_empty()


@pytest.mark.parametrize("where", ["tools", "arguments"])
def test_what_is_nested_too_deeply_is_a_fault(where: str) -> None:
    deep = orjson.loads('{"a":' * 1_000 + "1" + "}" * 1_000)
    row = answered(tool_calls=[call(arguments=deep)]) if where == "arguments" else answered() | {"tools": [deep]}
    assert check_rows([row], "chat", "minimind").faults[0].rule in ("tool_calls_invalid", "tools_invalid")


@pytest.mark.parametrize(
    ("shape", "row", "text"),
    [
        ("minimind", {"text": "a", "content": "b"}, "a"),
        ("text", {"text": "a", "content": "b"}, "a"),
        ("text", {"content": "b", "score": 1}, "b"),
        ("text", {"text": None, "content": "b"}, "b"),
        ("openai", {"messages": [user("q"), assistant("a\nb")]}, "q\na\nb"),
        ("alpaca", {"instruction": "q", "input": None, "output": "a"}, "q\na"),
    ],
)
def test_pretraining_rows(shape: Format, row: Row, text: str) -> None:
    checked = check_rows([{}, row], "pretrain", shape)
    assert checked.good.rows() == [(1, text)]
    assert checked.good.columns == ["row", "text"]
    assert checked.faults.keys() == {0}


@pytest.mark.parametrize("row", [{}, {"content": 5}, {"text": 5, "content": "b"}, {"text": "", "content": "b"}])
def test_a_row_of_the_text_format_without_text_is_a_fault(row: Row) -> None:
    assert check_rows([row], "pretrain", "text").faults[0].rule in ("text_missing", "text_blank")


@pytest.mark.parametrize(("kind", "shape"), [("sft", "minimind"), ("chat", "csv"), ("pretrain", "")])
def test_an_unknown_kind_or_format_is_a_mistake_of_the_program(kind: str, shape: Any) -> None:
    with pytest.raises(ValueError, match=r"pretrain or chat, format .* one of minimind, sharegpt"):
        check_rows([], kind, shape)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=3),
    st.sampled_from(["user", "assistant", "tool", "gpt", "human", "function_call", "text", "hi", "[]", "[{}]",
                     '{"a": 1}', '[{"name": "f", "arguments": {}}]']),
)  # fmt: skip
KEYS = (
    "text", "content", "conversations", "messages", "instruction", "input", "output", "history", "system", "tools",
    "role", "from", "value", "tool_calls", "reasoning_content", "name", "arguments", "function", "type", "tool_call_id",
)  # fmt: skip
keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=2))
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)
any_turns = st.lists(st.dictionaries(keys, anything, max_size=4), max_size=4)
near_rows = st.fixed_dictionaries(
    {},
    optional={
        key: st.one_of(any_turns, anything) for key in ("conversations", "messages", "tools", "system", "history")
    },
)
good_rows = st.one_of(
    *(plain_turns.map(make) for make in ROWS.values()), conversations.map(openai_rich), conversations.map(minimind_rich)
)
any_rows = st.lists(st.one_of(st.dictionaries(keys, anything, max_size=4), near_rows, good_rows), max_size=6)


@given(any_rows, st.sampled_from(("pretrain", "chat")), st.sampled_from(FORMATS))
@example([], "chat", "openai")
@example([], "pretrain", "alpaca")
@example([{"conversations": []}] * 2, "chat", "minimind")
def test_whatever_the_rows_each_is_good_or_a_fault_whoever_its_neighbours(
    rows: list[Row], kind: str, shape: Format
) -> None:
    rows = [orjson.loads(json.dumps(row)) for row in rows]
    checked = check_rows(rows, kind, shape)
    good = checked.good["row"].to_list()
    assert good == sorted(set(range(len(rows))) - checked.faults.keys())
    content = checked.good[checked.good.columns[1]].to_list()
    for index, row in enumerate(rows):
        alone = check_rows([row], kind, shape)
        assert alone.faults.get(0) == checked.faults.get(index)
        assert alone.good.rows() == ([(0, content[good.index(index)])] if index in good else [])


@given(st.lists(good_rows, min_size=1, max_size=4))
def test_checking_a_canonical_row_again_changes_nothing(rows: list[Row]) -> None:
    for shape in CHAT_FORMATS:
        once = check_rows(rows, "chat", shape).good["conversations"].to_list()
        again = check_rows([minimind_row(without_learned(turns)) for turns in once], "chat", "minimind")
        assert again.good["conversations"].to_list() == once


def test_a_conversation_for_pretraining_is_its_turns_as_lines() -> None:
    rows = [ROWS["openai"]([user("a"), assistant("b"), user("c")]), {"messages": [user("a")]}]
    checked = check_rows(rows, "pretrain", "openai")
    assert checked.good.rows() == [(0, "a\nb\nc")]
    assert checked.faults[1].rule == "conversation_unanswered"
